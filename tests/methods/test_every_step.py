"""The contract: what holds of every step of the workflow. A new one is one entry of EXAMPLES.

Those of installed packages are tried by test_installed_steps.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import (
    TINY,
    content_of,
    copy_run,
    environment,
    error_line,
    job_commands,
    run_command,
    run_snakemake,
)
from ifguide.files.artifacts import read_jsonl
from ifguide.methods.step import registered_steps
from ifguide.workflow.layout import Layout

LAYOUT = Layout("tiny")
# Methods that others name, in terms of the tiny config.
NAMED = {
    "classes": {
        "start_from": "none",
        "class_conditional": {"texts": "labelled", "batch_size": 4, "learning_rate": 0.001},
    },
    "shallow": {
        "start_from": "none",
        "learn_texts": {"texts": "labelled", "kind": "nontoxic", "blocks": "shallow"},
    },
}
# A method with the step.
EXAMPLES = {
    "filter": {"filter": {"words": "{planted}/words.txt"}},
    "suppress": {"suppress": {"selection": "top"}},
    "token_filter": {"token_filter": {"selection": "top", "mode": "remove"}},
    "dpo": {"start_from": "none", "dpo": {"pairs": "{planted}/pairs.tsv", "learning_rate": 0.001}},
    "rad": {"rad": {"reward": "toxicity"}},
    "learn_texts": {
        "start_from": "none",
        "learn_texts": {"texts": "labelled", "kind": "nontoxic", "batch_size": 4},
    },
    "class_conditional": NAMED["classes"],
    "dexperts": {"dexperts": {"expert": "ifguide", "anti_expert": "none"}},
    "gedi": {"gedi": {"classes": "classes"}},
    "output_fusion": {"output_fusion": {"calibration": "shallow", "strength": 0.6}},
    "eigenshift": {"eigenshift": {"generations": "own", "share": 0.5}},
    "model_surgery": {"model_surgery": {"texts": "labelled", "share": 0.5}},
    "antidote": {"antidote": {"texts": "labelled", "strength": 0.5, "targets": "all"}},
    "graded_filter": {
        "graded_filter": {"classifiers": ["explicit_literal", "implicit_literal", "word_list"]}
    },
    "aura": {"aura": {"texts": "labelled", "layers": "."}},
    "act": {"act": {"texts": "labelled"}},
    "lineas": {"lineas": {"texts": "labelled", "samples": 8, "steps": 20}},
    "sae_steering": {"sae_steering": {"texts": "labelled", "steps": 20, "strength": 1.0}},
    "sae_gating": {"sae_gating": {"texts": "labelled", "steps": 20, "strength": 1.0}},
    "sgeat": {
        "start_from": "none",
        "sgeat": {"generations": "own", "epochs": 4, "batch_size": 4, "learning_rate": 0.001},
    },
    "dapt": {"start_from": "none", "dapt": {"classifier": "explicit", "learning_rate": 0.001}},
    "contrastive_perplexity": {
        "start_from": "none",
        "contrastive_perplexity": {
            "pairs": "{planted}/pairs.tsv",
            "epochs": 12,
            "learning_rate": 0.001,
            "one_sided": True,
        },
    },
    "lancet": {
        "start_from": "none",
        "lancet": {"selection": "wide", "share": 0.1, "epochs": 2, "learning_rate": 0.001},
    },
    "attribute_control": {
        "start_from": "none",
        "attribute_control": {"generations": "own", "learning_rate": 0.001},
    },
    "cmd": {"start_from": "none", "cmd": {"pairs": "{planted}/pairs.tsv", "epochs": 8}},
    "dinm": {
        "start_from": "none",
        "dinm": {"pairs": "{planted}/pairs.tsv", "steps": 40, "learning_rate": 0.003},
    },
    "attribute_decoding": {"attribute_decoding": {"generations": "own", "factor": 4.0}},
    "irepair": {
        "start_from": "none",
        "irepair": {
            "pairs": "{planted}/pairs.tsv",
            "clean_texts": "labelled",
            "epochs": 8,
            "batch_size": 4,
            "learning_rate": 0.001,
        },
    },
    "rectification": {"rectification": {"generations": "own", "strength": 10}},
    "sasa": {"sasa": {"texts": "labelled", "beta": 200}},
    "uddia": {"uddia": {"texts": "labelled", "learning_rate": 0.5}},
}
# What leaves a model, or how it is decoded, as it was: of every step that edits or decodes.
OFF = {
    "rad": {"beta": 0, "top_k": None},
    "dexperts": {"strength": 0},
    "gedi": {"strength": 0, "filter": 0},
    "output_fusion": {"strength": 0},
    "eigenshift": {"strength": 0},
    "model_surgery": {"strength": 0},
    "antidote": {"strength": 0},
    "aura": {"strength": 0},
    "act": {"strength": 0},
    "lineas": {"strength": 0},
    "sae_steering": {"strength": 0},
    "sae_gating": {"strength": 0},
    "attribute_decoding": {"factor": 0.0},
    "rectification": {"strength": 0},
    "sasa": {"beta": 0},
    "uddia": {"learning_rate": 0},
}
BENCHMARKS = {"prompts": "realtoxicityprompts", "perplexity": "heldout", "lambada": "lambada"}
# By stage: the rule in which a step acts, and what that makes.
ACTS_IN = {
    "data": ("make_corpus", LAYOUT.kept_corpus("bpe", "{method}")),
    "train": ("make_model", LAYOUT.model("target", "{method}", "0")),
    "edit": ("make_model", LAYOUT.model("target", "{method}", "0")),
    "decode": (
        "generate_continuations",
        f"{LAYOUT.evaluation('target', '{method}', '0', 'realtoxicityprompts')}/continuations",
    ),
}
# The file by which that is asked for.
ASKED_FOR = {"make_corpus": "meta.json", "make_model": "training.json"}
# What a job leaves on its way, beside the folder that it makes or in it: an edit, what it saves.
ON_THE_WAY = {
    "data": "tokens/*.npy",
    "train": "../.*.checkpoints/checkpoint-*",
    "edit": "*",
    "decode": ".*.finished",
}


CONTINUATIONS = "continuations/shard-00000.jsonl"


def tried(key: str) -> str:
    return f"tried_{key}"


def methods_tried(examples: dict, off: dict) -> dict:
    entries = {tried(key): entry for key, entry in examples.items()}
    for key, options in off.items():
        entries[f"off_{key}"] = {**examples[key], key: {**examples[key][key], **options}}
    return entries


def compare(clone: Path, examples: dict, off: dict, measured: Iterable[str] = ()) -> str:
    """Write the overlay of the tiny config that compares every example; return its name.

    measured: methods that are compared, too, of those that are switched off.
    """
    overlay = {
        # What a model says that has hardly learned to speak: it learns from toxic text of its own.
        "classifiers": {"common": {"words": "common_words.txt"}},
        "own_generations": {"own": {"queries": [], "judges": ["common"]}},
        "methods": {**NAMED, **methods_tried(examples, off)},
        "evaluation": {"methods": ["none", *map(tried, examples), *measured]},
        "report": {"study": [], "agreement_blocks": 0, "proxy_agreement": None},
    }
    (clone / "common_words.txt").write_text("the\n", encoding="utf-8")
    (clone / "every_step.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    return "every_step.yaml"


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory) -> Path:
    """A finished tiny run in which a method of every step is compared as well, and planned.

    Its jobs run in this process, one after another: most of their time would go into imports.
    """
    clone = copy_run(finished, tmp_path_factory.mktemp("compared") / "clone")
    arguments = ["--configfile", TINY, compare(clone, EXAMPLES, OFF)]
    planned = run_snakemake(clone, "plan", "--cores", "1", *arguments)
    assert planned.returncode == 0, planned.stdout
    targets = [LAYOUT.shown("summary.csv"), *map(continuations, OFF)]
    for command in job_commands(clone, *targets, *arguments):
        assert run_command(clone, command) is None
    return clone


@pytest.fixture(scope="module")
def interruptible(compared, tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """A copy of that run, and by step the command of the job that it acts in."""
    clone = copy_run(compared, tmp_path_factory.mktemp("interruptible") / "clone")
    wanted = {key: acts_in(key) for key in EXAMPLES}
    for _, folder, asked_for in wanted.values():
        (clone / folder / asked_for).unlink()
    files = [folder / asked_for for _, folder, asked_for in wanted.values()]
    listed = job_commands(clone, *files, "--configfile", TINY, "every_step.yaml")
    commands = {}
    for key, (rule, folder, _) in wanted.items():
        (commands[key],) = [
            command
            for command in listed
            if Path(command[0]).stem == rule and any(str(folder) in part for part in command)
        ]
    return clone, commands


def acts_in(key: str) -> tuple[str, Path, str]:
    """The rule in which a step acts, the folder that it makes, and a file of it."""
    rule, made = ACTS_IN[registered_steps()[key].stage]
    return rule, Path(made.format(method=tried(key))), ASKED_FOR.get(rule, "shard-00000.jsonl")


def continuations(key: str) -> str:
    """What a method writes whose step is switched off: nothing else is measured of it."""
    folder = LAYOUT.evaluation("target", f"off_{key}", "0", "realtoxicityprompts")
    return f"{folder}/{CONTINUATIONS}"


def test_every_registered_step_is_tried():
    own = {
        key: step
        for key, step in registered_steps().items()
        if step.__module__.startswith("ifguide.")
    }
    assert set(EXAMPLES) == set(own)
    assert set(OFF) == {key for key, step in own.items() if step.stage in ("edit", "decode")}


@pytest.mark.parametrize("key", EXAMPLES)
def test_an_option_that_it_does_not_have_is_refused(dry_runs, key):
    entry = EXAMPLES[key]
    mistaken = {**entry, key: {**entry[key], "no_such_option": 1}}
    printed = dry_runs.printed(TINY, {"methods": {**NAMED, tried(key): mistaken}})
    assert error_line(printed).startswith(
        f"error: config: methods.{tried(key)}.{key}.no_such_option: unknown key"
    )


@pytest.mark.parametrize("key", EXAMPLES)
def test_its_rules_are_planned_before_it_runs(dry_runs, key):
    methods = {**NAMED, tried(key): EXAMPLES[key]}
    overlay = {"methods": methods, "evaluation": {"methods": ["none", tried(key)]}}
    assert ACTS_IN[registered_steps()[key].stage][0] in dry_runs.rules(TINY, overlay)


@pytest.mark.parametrize("key", EXAMPLES)
def test_its_row_stands_in_the_summary(compared, key):
    summary = pd.read_csv(compared / LAYOUT.shown("summary.csv"))
    own = summary[(summary["method"] == tried(key)) & (summary["model"] == "target")]
    measured = {BENCHMARKS[kind] for kind in registered_steps()[key].measured_on}
    assert measured == set(own["benchmark"]) & set(BENCHMARKS.values())


@pytest.mark.parametrize("key", EXAMPLES)
def test_its_work_is_above_zero(compared, key):
    rule, _ = ACTS_IN[registered_steps()[key].stage]
    plan = pd.read_csv(compared / LAYOUT.root / "plan.csv")
    of_rule = plan[(plan["rule"] == rule) & plan["subject"].str.contains(tried(key))]
    work = of_rule[["flops", "tokens"]].sum().sum()
    if rule == "generate_continuations":
        # Beside what the language model's own passes take.
        plain = plan[(plan["rule"] == rule) & plan["subject"].str.contains("target/none")]
        work -= plain[["flops", "tokens"]].sum().sum()
    assert work > 0


@pytest.mark.parametrize("key", EXAMPLES)
def test_an_interrupted_job_ends_with_the_same_bits(compared, interruptible, key):
    clone, commands = interruptible
    _, folder, _ = acts_in(key)
    for path in (clone / folder).rglob("*"):
        if path.is_file():
            path.unlink()
    begun = ON_THE_WAY[registered_steps()[key].stage]
    kill_at_work(clone, commands[key], clone / folder, begun)
    assert run_command(clone, commands[key]) is None
    assert content_of(clone, folder) == content_of(compared, folder)


def kill_at_work(clone: Path, command: list[str], folder: Path, begun: str) -> None:
    """Kill a job as soon as a file is there that it keeps on its way, below `folder`."""
    job = subprocess.Popen(
        [sys.executable, *command],
        cwd=clone,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (there := any(folder.glob(begun))) and job.poll() is None:
        time.sleep(0.01)
    assert there, "the job ended without a trace"
    with contextlib.suppress(ProcessLookupError):  # of a job that was faster
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


@pytest.mark.parametrize("key", OFF)
def test_switched_off_it_is_the_model_that_it_began_with(compared, key):
    assert spoken(compared, f"off_{key}") == spoken(compared, "none")
    assert spoken(compared, tried(key)) != spoken(compared, "none")


def spoken(clone: Path, method: str) -> list[str]:
    folder = LAYOUT.evaluation("target", method, "0", "realtoxicityprompts")
    return [record["continuation"] for record in read_jsonl(clone / folder / CONTINUATIONS)]

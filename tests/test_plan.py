"""`snakemake plan`: the jobs of the run itself, work that files and models confirm, no network."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from conftest import TINY, copy_repository, copy_run, environment, jobs_to_run, run_snakemake
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, write_json
from ifguide.methods import step
from ifguide.models import costs
from ifguide.models.devices import DEVICES, GIB, KINDS
from ifguide.models.work import Work
from ifguide.planning import jobs
from ifguide.planning.counts import Counts
from ifguide.planning.devices import planned_devices
from ifguide.planning.experiment import Experiment
from ifguide.planning.jobs import PlannedJob
from ifguide.planning.rules import RULES
from ifguide.planning.tables import plan_table, shown, stage_table
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config

RESULTS = Path("results/tiny")
PAPER = ["config/paper.yaml", "config/overlays/scale_1b.yaml"]


def planned(clone: Path, *configs: str, results: Path = RESULTS) -> tuple[pd.DataFrame, str]:
    ran = run_snakemake(clone, "plan", "--cores", "1", "--configfile", *configs)
    assert ran.returncode == 0, ran.stdout
    return pd.read_csv(clone / results / "plan.csv"), ran.stdout


def size(clone: Path, pattern: str) -> float:
    return sum(path.stat().st_size for path in clone.glob(f"{RESULTS}/{pattern}")) / GIB


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The plan of a clone in which nothing has run, and the dry run of everything."""
    clone = copy_repository(tmp_path_factory.mktemp("before") / "clone")
    table, printed = planned(clone, TINY)
    dry = run_snakemake(clone, "--configfile", TINY, "--cores", "1", "--dry-run")
    return clone, table, printed, jobs_to_run(dry.stdout)


@pytest.fixture(scope="module")
def after(finished, tmp_path_factory):
    """The plan of a finished run."""
    clone = copy_run(finished, tmp_path_factory.mktemp("after") / "clone")
    return clone, *planned(clone, TINY)


def test_the_jobs_are_those_of_a_dry_run(before):
    _, table, printed, dry = before
    assert table.groupby("rule")["jobs"].sum().to_dict() == dry
    assert (table["remaining_jobs"] == table["jobs"]).all()
    assert table["measured_jobs"].sum() == 0
    total = re.search(r"^total +(\d+) +(\d+) ", printed, re.M)
    assert [int(number) for number in total.groups()] == [sum(dry.values())] * 2


def test_every_rule_is_known(before, repository):
    clone, _, _, tiny = before
    full = run_snakemake(
        clone, "--configfile", "config/overlays/full.yaml", "--cores", "1", "--dry-run"
    )
    assert {*tiny, *jobs_to_run(full.stdout)} <= set(RULES)
    files = (repository / "workflow").rglob("*.smk")
    text = "".join(path.read_text("utf-8") for path in [repository / "workflow/Snakefile", *files])
    assert set(RULES) <= set(re.findall(r"^(?:use )?rule (?:\w+ as )?(\w+)", text, re.M))


def test_an_unknown_rule_is_refused(monkeypatch):
    found = [{"rule": "cook", "wildcards": {}, "benchmark": None}]
    monkeypatch.setattr(jobs, "dry_run", lambda *_: found)
    with pytest.raises(InputError, match=r"^the plan does not know the rule cook; .*/rules\.py"):
        jobs.planned_jobs(SimpleNamespace(config={}, facts={"proxies": []}), Path(), "Snakefile")


def test_a_plan_says_where_its_numbers_come_from(before):
    clone, _, printed, _ = before
    written = (clone / RESULTS / "plan.md").read_text(encoding="utf-8")
    for text in (printed, written):
        assert "tokens of the corpus, bpe" in text and "planted documents" in text
        assert "records of queries.toxic: 24 (config section planted)" in text
        assert "assumed utilisation" in text
    # It is no run: nothing is recorded or locked.
    assert not (clone / RESULTS / "run_config.yaml").exists()


def test_every_stage_that_computes_has_work(before):
    _, table, _, _ = before
    work = table.groupby("rule")[["flops", "tokens", "disk_gib"]].sum()
    for rule in (
        *("make_model", "train_classifier", "train_reward", "sum_covariances"),
        *("correct_eigenvalues", "measure_query_gradient", "score_tokens"),
        *("generate_continuations", "classify_continuations", "measure_fluency"),
        "measure_agreement",
    ):
        assert work.loc[rule, "flops"] > 0, rule
    for rule in (
        *("tokenize_documents", "make_model", "merge_factors", "score_tokens", "select_tokens"),
        "generate_continuations",
    ):
        assert work.loc[rule, "disk_gib"] > 0, rule
    methods = set(table[table["rule"] == "make_model"]["subject"])
    assert methods == {
        *("proxy/none", "target/none", "target/word_filter", "target/ifguide", "target/dpo")
    }


def test_a_finished_run_is_measured_and_compared(after):
    clone, table, printed = after
    assert table["remaining_jobs"].sum() == 0
    measured = table[table["measured_jobs"] > 0]
    assert set(table["rule"]) - set(measured["rule"]) == {"all"}
    assert (measured["measured_jobs"] == measured["jobs"]).all()
    benchmarks = (clone / "logs/tiny/benchmarks").rglob("*.tsv")
    seconds = sum(float(path.read_text().splitlines()[1].split("\t")[0]) for path in benchmarks)
    assert measured["measured_hours"].sum() == pytest.approx(seconds / 3600, rel=1e-4)
    scores = measured[measured["rule"] == "score_tokens"].iloc[0]
    expected = scores["hours_cpu-core"] / scores["measured_hours"]
    assert scores["estimated_over_measured"] == pytest.approx(expected, rel=1e-4)
    assert "measured" in printed and "estimated" in printed


def test_counts_and_sizes_are_those_of_the_files(after):
    clone, table, _ = after
    rules = table.groupby("rule")[["tokens", "disk_gib"]].sum()
    corpus = read_json(clone / RESULTS / "corpus/bpe/meta.json")
    assert rules.loc["tokenize_documents", "tokens"] == corpus["tokens"]
    assert rules.loc["tokenize_part", "tokens"] == corpus["tokens"]
    trained = table[table["subject"] == "target/ifguide"].set_index("rule")
    assert trained.loc["make_model", "tokens"] == 2 * corpus["tokens"]
    filtered = read_json(clone / RESULTS / "corpus/bpe/filtered/word_filter/meta.json")
    assert filtered["tokens"] < corpus["tokens"]
    for rule, pattern in (
        ("make_model", "models/*/*/0/model.safetensors"),
        ("score_tokens", "influence/*/[dp]*/scores/*/shard-*.npy"),
        ("sum_covariances", "influence/proxy/covariances/*.safetensors"),
        ("merge_factors", "influence/proxy/factors.safetensors"),
        ("tokenize_part", "corpus/bpe/parts/shard-*.npy"),
        ("tokenize_documents", "corpus/bpe/[td]*/shard-*.npy"),
        ("select_tokens", "influence/proxy/differential/top/mask/*.npy"),
    ):
        # Headers, and what pads a block's end, are all that is left out.
        assert rules.loc[rule, "disk_gib"] == pytest.approx(size(clone, pattern), rel=0.15), rule


@pytest.mark.slow
def test_the_plan_of_a_billion_tokens_needs_no_network(tmp_path):
    clone = copy_repository(tmp_path / "clone")
    table, printed = planned(clone, *PAPER, results=Path("results/paper"))
    dry = run_snakemake(clone, "--configfile", *PAPER, "--cores", "1", "--dry-run")
    assert table.groupby("rule")["jobs"].sum().to_dict() == jobs_to_run(dry.stdout)
    assert "tokens of the corpus, pythia: 1,000,000,000 (config key plan.tokens)" in printed
    rows = table.set_index(["rule", "subject"])
    target = rows.loc[("make_model", "pythia-1b/none")]
    assert target["tokens"] == pytest.approx(1e9, rel=1e-4)
    # 6 N T, and attention; on 989 TFLOP/s of which 40 % are reached.
    flops = 1e9 * (6 * (1_011_781_632 - 50_304 * 2048) + 12 * 16 * 2048 * 2048)
    assert target["flops"] == pytest.approx(flops, rel=1e-4)
    assert target["hours_h100"] == pytest.approx(flops / (0.4 * 989e12) / 3600, rel=0.01)
    scores = rows.loc[("score_tokens", "pythia-160m/differential/loss")]
    assert scores["tokens"] == pytest.approx(1e9, rel=1e-4)
    assert scores["jobs"] == 64


def error_of(clone: Path, overlay: dict, *configs: str) -> str:
    (clone / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    ran = run_snakemake(clone, "plan", "--cores", "1", "--configfile", *configs, "overlay.yaml")
    assert ran.returncode == 1
    return next(line for line in ran.stdout.splitlines() if line.startswith("error: "))


@pytest.mark.slow
def test_what_cannot_be_planned_is_one_line(before, tmp_path):
    clone, *_ = before
    assert error_of(clone, {"plan": {"devices": ["h1000"]}}, TINY) == (
        "error: config: plan.devices: 'h1000' is none of a100, a10g, b200, cpu-core, h100, "
        "h100-pcie, h200, l4, l40s"
    )
    assert error_of(clone, {"plan": {"records": {"queries.none": 5}}}, TINY).startswith(
        "error: config: plan.records: 'queries.none' is none of benchmarks.lambada, "
    )
    missing = {"plan": {"calibration": "device.json", "devices": ["calibrated"]}}
    assert error_of(clone, missing, TINY).startswith(
        "error: config key plan.calibration: device.json does not exist; write it with "
    )
    assert error_of(clone, {"plan": {"tokens": None}}, "config/paper.yaml") == (
        "error: config key plan.tokens: missing, and the files of corpus source openwebtext are "
        "not here yet; give the number of tokens, or fetch the files first"
    )


@pytest.mark.slow
def test_a_measured_device_can_be_planned_with(tmp_path, repository, counts):
    path = tmp_path / "device.json"
    command = [sys.executable, repository / "scripts/measure_device.py", "--output", path]
    command += ["--architecture", "pythia-14m", "--blocks", "1", "--block-size", "32"]
    subprocess.run(list(map(str, command)), check=True, env=environment())
    plan = counts.plan | {"calibration": str(path), "devices": ["calibrated"]}
    (device,), start_seconds, notes = planned_devices(plan)
    measured = read_json(path)
    assert start_seconds == measured["start_seconds"] > 0
    assert device.peak == {name: measured[name] for name in ("bfloat16", "tf32", "float32")}
    assert set(device.utilisation) == set(KINDS)
    assert all(0 < share <= 1 for share in device.utilisation.values())
    assert f"measured in {path}" in notes[0]


# --- the parts ------------------------------------------------------------------------------------


def job(stage, seconds, measured=None, remaining=True, **work):
    work = Work(processor_seconds=seconds, loads=False, **work)
    return PlannedJob(stage, "rule", "subject", work, remaining, measured)


def test_a_ratio_compares_measured_jobs_alone():
    jobs = [
        job("a", 3600, memory=GIB),
        job("a", 7200, measured=3600.0, remaining=False, memory=2 * GIB),
        job("b", 1800, measured=3600.0, remaining=False),
    ]
    device = DEVICES["cpu-core"]
    table = plan_table(jobs, [device], 0.0)
    assert table["jobs"].tolist() == [2, 1] and table["remaining_jobs"].tolist() == [1, 0]
    assert table["hours_cpu-core"].tolist() == [3, 0.5]
    assert table["memory_gib"].tolist() == [2, 0]
    assert table["longest_job_hours"].tolist() == [2, 0.5]
    assert table["estimated_over_measured"].tolist() == [2, 0.5]
    stages = stage_table(table).set_index("stage")
    assert stages.loc["total", "estimated_over_measured"] == pytest.approx(2.5 / 2)
    assert stages.loc["total", "memory_gib"] == 2
    heading, lines = shown(stages.reset_index(), [device])
    assert heading[-1] == "estimated / measured (cpu-core)" and lines[-1][-1] == "1.25"


def test_work_that_loads_libraries_waits_for_them():
    device = DEVICES["h100"]
    work = Work(kind="scores", flops=67e12, processor_seconds=1)
    assert work.seconds(device, 5.0) == pytest.approx(2 + 1 + 5)
    assert Work(processor_seconds=1, loads=False).seconds(device, 5.0) == pytest.approx(1 + 0.5)


def test_parts_of_a_job():
    training = Work(kind="training", tokens=1, flops=9, precision="bfloat16", memory=5, disk=2)
    editing = Work(kind="scores", tokens=2, flops=3, memory=4, processor_seconds=1)
    both = dict(kind="training", tokens=3, flops=12, precision="bfloat16", processor_seconds=1)
    assert training.then(editing) == Work(**both, memory=5, disk=2)
    assert editing.beside(training) == Work(**both, memory=9, disk=2)


@pytest.fixture
def counts(tmp_path, repository):
    """Counts of a small config of local files."""
    config = with_defaults(Config, yaml.safe_load((repository / TINY).read_text("utf-8")))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": "x" * 100}) + "\n" for _ in range(20)))
    source = {"name": "texts", "text": "text", "documents": "line", "limit": None}
    config["corpus"]["sources"] = [source | {"held_out": 0.25}]
    facts = {
        "planted": "nowhere",
        "sources": [[str(texts)]],
        "corpora": {"bpe": str(tmp_path / "corpus")},
        "records": {
            "queries.toxic": {
                "report": str(tmp_path / "toxic.json"),
                "entries": [{"paths": [str(texts)], "part": [0.0, 0.5]}],
            },
            "queries.safe": {"report": None, "entries": [{"paths": ["missing"], "limit": 7}]},
        },
    }
    return Counts(config, facts)


def test_tokens_are_reckoned_until_they_are_counted(counts, tmp_path):
    assert counts.tokens("bpe") == 20 * 100 * 0.75 / 4
    assert counts.held_out_tokens("bpe") == 20 * 100 * 0.25 / 4
    assert "local files, read; plan.characters_per_token: 4" in str(counts.found.values())
    counts.plan["tokens"] = 900
    counts.found.clear()
    assert (counts.tokens("bpe"), counts.held_out_tokens("bpe")) == (900, 300)
    write_json(tmp_path / "corpus/meta.json", {"tokens": 123})
    counts.found.clear()
    assert counts.tokens("bpe") == 123


def test_a_source_that_is_not_here_needs_a_number(counts):
    counts.facts["sources"] = [["missing/*.parquet"]]
    with pytest.raises(InputError, match=r"^config key plan.tokens: missing, .* source texts are"):
        counts.tokens("bpe")


def test_records_are_reckoned_until_they_are_counted(counts, tmp_path):
    assert counts.records("queries.toxic") == 10
    assert counts.records("queries.safe") == 7
    counts.plan["records"]["queries.toxic"] = 8
    counts.found.clear()
    assert counts.records("queries.toxic") == 8
    write_json(tmp_path / "toxic.json", {"kept": {"toxic": 2, "nontoxic": 4}})
    counts.found.clear()
    assert counts.records("queries.toxic") == 6


# --- what a method's steps cost -------------------------------------------------------------------


class Erase(step.Step):
    """An edit that reads labelled texts once."""

    stage = "edit"
    Options = dict

    def work(self, sizes):
        tokens = sizes.records("texts") * 10
        flops = tokens * costs.forward_flops(sizes.shape, 10)
        return Work(kind="scores", tokens=tokens, flops=flops)


@pytest.fixture
def experiment(counts, monkeypatch):
    """An experiment of one model and of methods with steps at every stage."""
    known = {**step.registered_steps(), "erase": Erase}
    monkeypatch.setattr(step, "registered_steps", lambda: known)
    config, pairs = counts.config, {"paths": ["missing"], "limit": 100}
    config["methods"] |= {
        "erased": {"start_from": "none", "erase": {}},
        "own_texts": {
            "start_from": "none",
            "sgeat": {"generations": "own", "share": 0.25, "epochs": 4},
        },
        "one_matrix": {
            "start_from": "none",
            "dinm": {"pairs": "x", "steps": 3, "batch_size": 2},
        },
        "suppressed_and_erased": {"erase": {}, "suppress": {"tokens": "truth"}},
        "trained_and_erased": {"erase": {}, "training": {"epochs": 2}},
        "filtered_and_erased": {"erase": {}, "filter": {"selection": "top", "share": 0.2}},
    }
    facts = counts.facts | {
        "truth": False,
        "architectures": {name: m["architecture"] for name, m in config["models"].items()},
        "trainings": {"target": dict.fromkeys(config["methods"], config["training"])},
        "trains": {method: method not in ("erased", "rad") for method in config["methods"]},
    }
    facts["records"] |= {
        f"methods.{method}": {"report": None, "entries": [pairs]} for method in config["methods"]
    }
    for benchmark in ("realtoxicityprompts", "toxigen"):
        facts["records"][f"benchmarks.{benchmark}"] = {"report": None, "entries": [pairs]}
    return Experiment(config, facts)


def work_of(experiment, rule, method, **wildcards):
    return RULES[rule].work(experiment, method=method, **wildcards)


def test_steps_are_those_of_the_entry_in_the_order_of_stages(experiment):
    entry = experiment.config["methods"]["suppressed_and_erased"]
    assert [found.stage for found in step.steps_of(entry)] == ["train", "edit"]
    assert step.steps_of(experiment.config["methods"]["none"]) == []


def test_a_model_is_the_work_of_its_steps(experiment):
    shape, of_model = experiment.shape("target"), {"model": "target", "seed": "0"}
    plain = work_of(experiment, "make_model", "none", **of_model)
    assert plain.tokens == 2 * experiment.counts.tokens("bpe")
    assert plain.disk == 4 * shape.parameters
    erased = work_of(experiment, "make_model", "erased", **of_model)
    assert (erased.kind, erased.tokens, erased.disk) == ("scores", 1000, plain.disk)
    for method in ("suppressed_and_erased", "trained_and_erased"):
        both = work_of(experiment, "make_model", method, **of_model)
        assert both.flops == plain.flops + erased.flops and both.disk == plain.disk
    both = work_of(experiment, "make_model", "filtered_and_erased", **of_model)
    assert both.tokens == pytest.approx(0.8 * plain.tokens + 1000)


def test_a_trainer_of_pairs_and_its_reference_read_both_sides(experiment):
    shape = experiment.shape("target")
    pairs = work_of(experiment, "make_model", "dpo", model="target", seed="0")
    assert pairs.tokens == 4 * 100 * 2 * 50  # epochs, pairs, sides, tokens
    assert pairs.flops == pytest.approx(pairs.tokens * 4 * costs.forward_flops(shape, 50))


def test_what_a_model_writes_itself_is_counted_by_the_config(experiment):
    written = experiment.config["own_generations"]["own"]
    texts = written["prompts"] * written["continuations"]
    work = work_of(experiment, "make_model", "own_texts", model="target", seed="0")
    assert work.tokens == 4 * 0.25 * texts * experiment.block_size
    work = work_of(experiment, "make_model", "one_matrix", model="target", seed="0")
    assert work.tokens == (3 * 2 + 1) * 50


def test_a_guided_continuation_has_all_candidates_read(experiment):
    of_shard = {"model": "target", "seed": "0", "shard": "00000"}
    plain = work_of(experiment, "generate_continuations", "none", **of_shard)
    guided = work_of(experiment, "generate_continuations", "rad", **of_shard)
    # Of each benchmark prompts, continuations, tokens of each, and for each token itself and 5
    # candidates.
    read = 100 * 5 * 8 * 6 * costs.encoder_flops(16, 1, 8)
    read += 100 * 3 * 6 * 6 * costs.encoder_flops(16, 1, 6)
    assert guided.flops == pytest.approx(plain.flops + read)
    assert guided.tokens == plain.tokens


def test_a_corpus_is_what_its_data_step_keeps(experiment):
    whole = experiment.counts.tokens("bpe")
    work = work_of(experiment, "make_corpus", "standard_influence", tokenizer="bpe")
    assert work.tokens == whole
    assert work.disk == pytest.approx(0.9 * whole * (2 + 4))
    assert experiment.counts.training_tokens("bpe", "word_filter") == whole

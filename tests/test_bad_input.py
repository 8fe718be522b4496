"""What a user's mistake is answered with: one line, early, that says what to correct."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import (
    REPOSITORY,
    TINY,
    copy_run,
    environment,
    error_line,
    run_snakemake,
)
from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.corpus import open_corpus
from ifguide.data.prompt_lengths import Room, longest_prompt
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, read_jsonl, write_array, write_jsonl

RESULTS = Path("results/tiny")
SCORES = RESULTS / "influence/proxy/differential/scores/loss"
TOXIC = {"format": "realtoxicityprompts", "files": "{planted}/queries.jsonl"}


def source(**settings) -> dict:
    return {"corpus": {"sources": [{"name": "texts", "spans": "spans", **settings}]}}


def other_target(**model) -> dict:
    """A model that is not merged with one of the tiny config."""
    return {
        "models": {"other": {"tokenizer": "bpe", **model}},
        "evaluation": {"models": ["other"]},
    }


@pytest.mark.parametrize(
    "overlay, expected",
    [
        ({"trainings": {}}, "trainings: unknown key; did you mean training?"),
        (
            {"training": {"learning_rat": 1}},
            "training.learning_rat: unknown key; did you mean learning_rate?",
        ),
        (
            {"training": {"learning_rate": "1e-3"}},
            "training.learning_rate: '1e-3' is not a number; YAML reads 1e-3 as text, write "
            "1.0e-3",
        ),
        (
            {"training": {"learning_rate": "1e5"}},
            "training.learning_rate: '1e5' is not a number; YAML reads 1e5 as text, write 1.0e+5",
        ),
        (
            {"training": None},
            "training: is empty, but must be a section of keys; fill it in or remove the key",
        ),
        ({"training": {"clip": -1}}, "training.clip: -1 is less than the minimum of 0"),
        (
            {"training": {"precision": "bfloat"}},
            "training.precision: 'bfloat' is none of float32, bfloat16; did you mean bfloat16?",
        ),
        ({"corpus": {"block_size": 12.5}}, "corpus.block_size: 12.5 is not a whole number"),
        (
            {"corpus": {"block_size": 128.0}},
            "corpus.block_size: 128.0 is not a whole number; write 128",
        ),
        ({"training": {"clip": math.nan}}, "training.clip: nan is not a finite number"),
        ({"training": {"clip": math.inf}}, "training.clip: inf is not a finite number"),
        (
            {"models": {"target": {"architecture": {"rope_scaling": {"factor": math.inf}}}}},
            "models.target.architecture.rope_scaling.factor: inf is not a finite number",
        ),
        ({"training": {"compile": 1}}, "training.compile: 1 is not true or false"),
        ({"evaluation": {"seeds": [1, 0, 1]}}, "evaluation.seeds: 1 stands twice"),
        (
            {"influence": {"factors": {"labels": True}}},
            'influence.factors.labels: true is none of sampled, true; write "true", in quotes',
        ),
        (source(), "corpus.sources.0.files: missing: Path or glob of the files;"),
        (
            source(files="a.txt", hub="some/texts"),
            "corpus.sources.0.revision: missing, beside hub: Full commit hash that pins the hub",
        ),
        (
            source(files="a.txt", revision="0" * 40),
            "corpus.sources.0.hub: missing, beside revision: Hub data set that holds the files.",
        ),
        (
            source(files="a.txt", hub="some/texts", revision="main"),
            "corpus.sources.0.revision: 'main' is not a full commit hash of 40 hexadecimal digits",
        ),
        (
            source(files="data/*", hub="some/texts", revision="0" * 40),
            "corpus.sources.texts.files: 'data/*' may match files that are not data; end it with "
            "one of .parquet,",
        ),
        (
            source(files="a.txt", hub="some texts", revision="0" * 40),
            "corpus.sources.0.hub: 'some texts' is not the name of a repository, such as "
            "owner/name",
        ),
        (
            {"models": {"target": {"architecture": {"hub": "some/model"}}}},
            "models.target.architecture.revision: missing, beside hub: Full commit hash",
        ),
        (
            {"tokenizers": {"other": {"hub": "some/model"}}},
            "tokenizers.other: give exactly one of vocabulary_size, or path, or hub with revision",
        ),
        (
            {"classifiers": {"explicit": {"hub": "unbiased"}}},
            "classifiers.explicit: give only one of train, or hub",
        ),
        (
            {"classifiers": {"other": {"hub": "unbaised"}}},
            "classifiers.other: unbaised is no published Detoxify model (unbiased, original, "
            "multilingual, unbiased-small, original-small); another one needs `revision`",
        ),
        (
            {"classifiers": {"other": {"hub": "unbiased", "revision": "0" * 40}}},
            "classifiers.other: unbiased is a published Detoxify model, which has no `revision`",
        ),
        (
            {"classifiers": {"other": {"hub": "org/judge", "revision": "0" * 40}}},
            "classifiers.other.toxic_label: missing, beside hub: Index or name",
        ),
        (
            {"classifiers": {"other": {"path": "folder"}}},
            "classifiers.other.toxic_label: missing, beside path: Index or name",
        ),
        (
            {"classifiers": {"explicit_literal": {"toxic_label": 1}}},
            "classifiers.explicit_literal: toxic_label goes with a sequence classifier",
        ),
        (
            {"classifiers": {"other": {"planted": "hidden"}}},
            "classifiers.other.planted: 'hidden' is none of explicit, implicit",
        ),
        (
            {"classifiers": {"other": {}}},
            "classifiers.other: give exactly one of train, or checkpoint, or path, or hub, or "
            "planted, or words",
        ),
        (
            {"classifiers": {"other": {"train": {"sources": []}}}},
            "classifiers.other.train.kind: missing: What it is: `kind: detoxify`, a Detoxify "
            "checkpoint",
        ),
        (
            {"classifiers": {"prompt": {"planted": "explicit"}}},
            "classifiers: 'prompt' cannot be a name here",
        ),
        (
            {"classifiers": {"other": {"words": "{planted}/slurs.txt"}}},
            "classifiers.other.words: the planted corpus has no file slurs.txt",
        ),
        (
            {"tokenizers": {"bpe": {"path": "somewhere"}}},
            "tokenizers.bpe: give only one of vocabulary_size, or path",
        ),
        (
            {"queries": {"toxic": {"limit": "many"}}},
            "queries.toxic.limit: 'many' is not a whole number or null or a section of keys",
        ),
        (
            {"queries": {"toxic": {"limit": {"toxc": 3}}}},
            "queries.toxic.limit.toxc: unknown key; did you mean toxic?",
        ),
        (
            {"queries": {"toxic": {"part": [0.5, 0.5]}}},
            "queries.toxic.part: [0.5, 0.5] holds nothing",
        ),
        (
            {"methods": {"my method": {}}},
            "methods: 'my method' is not a name: letters, digits, - and _, the first a letter or "
            "digit",
        ),
        (
            {"methods": {"none": {"suppress": {"selection": "top"}}}},
            "methods.none.suppress: unknown key; the keys here are training",
        ),
        (
            {"methods": {"ascent": {"start_from": "repair"}, "repair": {"start_from": "ascent"}}},
            "methods.ascent.start_from: begins with a model made from itself",
        ),
        (
            {"methods": {"ifguide": {"compare_with": "ifguide"}}},
            "methods.ifguide.compare_with: 'ifguide' is none of ascent, dpo, none, rad, repair, "
            "standard_influence, toxicity_filter, word_filter, word_filter_equal",
        ),
        (
            {"methods": {"ifguide": {"compare_with": "repair"}}},
            "methods.ifguide.compare_with: 'repair' is not compared; add it to evaluation.methods",
        ),
        (
            {"evaluation": {"benchmarks": ["heldout"]}},
            "report.benchmark: 'realtoxicityprompts' is none of nothing",
        ),
        (
            {"influence": {"directions": {"gradients": {"toxic": "toxic"}}}},
            "influence.directions: 'gradients' cannot be a name here",
        ),
        (
            {"influence": {"model": "poxy"}},
            "influence.model: 'poxy' is none of proxy, target",
        ),
        (
            {"evaluation": {"models": ["pythia"]}},
            "evaluation.models: 'pythia' is none of proxy, target",
        ),
        (
            {"evaluation": {"methods": ["none", "if-guide"]}},
            "evaluation.methods: 'if-guide' is none of ascent, dpo, ifguide, none, rad, "
            "repair, standard_influence, toxicity_filter, word_filter, word_filter_equal",
        ),
        (
            {"methods": {"ifguide": {"suppress": {"selection": "bottom"}}}},
            "methods.ifguide.suppress.selection: 'bottom' is none of top, wide",
        ),
        (
            {"methods": {"mine": {"suppress": {"objective": "exclusion"}}}},
            "methods.mine.suppress.selection: missing: Name of an entry of `influence.selections`.",
        ),
        (
            {"methods": {"ifguide": {"suppress": {"tokens": "truth"}}}},
            "methods.ifguide.suppress.selection: is not used by tokens: truth",
        ),
        (
            {"methods": {"ifguide": {"filter": {"words": "{planted}/words.txt"}}}},
            "methods.ifguide: give only one of filter, or suppress",
        ),
        (
            {"methods": {"mine": {"filter": {"words": "words.txt"}}}},
            "methods.mine.filter.words: no file matches words.txt",
        ),
        (
            {"methods": {"mine": {"filter": {"classifier": "explicit", "treshold": 0.5}}}},
            "methods.mine.filter.treshold: unknown key; did you mean threshold?",
        ),
        (
            {
                "methods": {
                    "toxicity_filter": {"filter": {"classifier": "explicit_literal"}},
                }
            },
            "methods.toxicity_filter.filter.threshold: no text was held out from "
            "explicit_literal, which is not trained here; give a number",
        ),
        (
            {"methods": {"word_filter_equal": {"filter": {"drop_tokens_of": "bottom"}}}},
            "methods.word_filter_equal.filter.drop_tokens_of: 'bottom' is none of top, wide",
        ),
        (
            {"methods": {"mine": {"filter": {"selection": "bottom", "share": 0.1}}}},
            "methods.mine.filter.selection: 'bottom' is none of top, wide",
        ),
        (
            {"methods": {"mine": {"filter": {"selection": "top"}}}},
            "methods.mine.filter.share: missing: Share of the corpus's tokens to drop.",
        ),
        (
            {"methods": {"mine": {"start_from": {"path": "no/model"}}}},
            "methods.mine.start_from.path: no/model/config.json does not exist",
        ),
        (
            {"influence": {"directions": {"differential": {"safe": "harmless"}}}},
            "influence.directions.differential.safe: 'harmless' is none of matched, safe, toxic",
        ),
        (
            {"report": {"benchmark": "heldout"}},
            "report.benchmark: 'heldout' is none of realtoxicityprompts, toxigen",
        ),
        (
            {"benchmarks": {"bold": {"kind": "prompt"}}},
            "benchmarks.bold.kind: 'prompt' is none of prompts, perplexity, lambada; did you mean "
            "prompts?",
        ),
        (
            {"models": {"target": {"architecture": {"max_position_embeddings": 64}}}},
            "corpus.block_size: 128 is longer than the 64 positions of models.target",
        ),
        (
            {"corpus": {"block_size": 4096}, **other_target(architecture={"name": "pythia-160m"})},
            "corpus.block_size: 4096 is longer than the 2048 positions of models.other",
        ),
        (
            other_target(architecture={"name": "pythia-160"}),
            "models.other.architecture.name: 'pythia-160' is no published architecture known here; "
            "known are pythia-14m,",
        ),
        (
            other_target(architecture={"file": "pythia.json"}),
            "models.other.architecture.file: pythia.json does not exist",
        ),
        (
            {"models": {"target": {"architecture": {"name": "pythia-14m"}}}},
            "models.target.architecture: give only one of model_type, or name",
        ),
        (
            {"models": {"early": {"checkpoint": {"of": "targets", "at": 0.5}}}},
            "models.early.checkpoint.of: 'targets' is none of the models trained from an "
            "architecture: proxy, target",
        ),
        (
            {"models": {"early": {"tokenizer": "bpe", "checkpoint": {"of": "proxy", "at": 1}}}},
            "models.early.checkpoint.at: 1 is greater than or equal to the maximum of 1",
        ),
        (
            {"models": {"early": {"training": {}, "checkpoint": {"of": "proxy", "at": 0.5}}}},
            "models.early.training: a checkpoint takes this from proxy; remove the key",
        ),
        (
            {"models": {"target": {"path": "weights"}}},
            "models.target: give only one of architecture, or path",
        ),
        (
            other_target(path="EleutherAI/pythia-14m"),
            "models.other.path: EleutherAI/pythia-14m is not the directory of a model",
        ),
        (
            {"methods": {"ifguide": {"suppress": {"strength": -1}}}},
            "methods.ifguide.suppress.strength: -1 is less than the minimum of 0",
        ),
        (
            {"training": {"explosion_factor": 1}},
            "training.explosion_factor: 1 is less than or equal to the minimum of 1",
        ),
        (
            {"tokenizers": {"other": {"path": "EleutherAI/pythia-14m"}}},
            "tokenizers.other.path: EleutherAI/pythia-14m does not exist",
        ),
        (source(files="texts/*.txt"), "corpus.sources.texts.files: no file matches texts/*.txt"),
        (
            source(files="{data_dir}/a.txt"),
            "corpus.sources.texts.files: no file matches data/a.txt",
        ),
        (
            source(files="{data}/a.txt"),
            "corpus.sources.texts.files: '{data}/a.txt': only {planted} and {data_dir} are filled "
            "in",
        ),
        (
            {"queries": {"toxic": {"files": "{planted}/query.jsonl"}}},
            "queries.toxic.files: the planted corpus has no file query.jsonl; it has "
            "documents.jsonl,",
        ),
        (
            {"benchmarks": {"lambada": {"files": "lambada.jsonl"}}},
            "benchmarks.lambada.files: no file matches lambada.jsonl",
        ),
    ],
)  # fmt: skip
def test_a_mistaken_config_is_one_line(dry_runs, overlay, expected):
    printed = dry_runs.printed(TINY, overlay)
    assert error_line(printed).startswith(f"error: config: {expected}")
    assert "Traceback" not in printed and "File " not in printed


def standing_alone(**classifiers) -> dict:
    """The tiny config with other classifiers: an overlay could only add to those it has."""
    config = yaml.safe_load((REPOSITORY / TINY).read_text("utf-8"))
    config["classifiers"] |= classifiers
    # A judge that is given has no held-out texts to tell a rate of false alarms by.
    config["methods"]["toxicity_filter"]["filter"]["threshold"] = 0.5
    return config


def judge(folder: Path, labels: int, weights: str = "model.safetensors") -> Path:
    folder.mkdir()
    names = {str(index): f"LABEL_{index}" for index in range(labels)}
    (folder / "config.json").write_text(json.dumps({"id2label": names}), encoding="utf-8")
    (folder / weights).touch()
    return folder


def test_classifiers_that_are_not_there(dry_runs):
    missing = standing_alone(implicit={"path": "tomh/toxigen_roberta", "toxic_label": 1})
    assert error_line(dry_runs.printed(missing)) == (
        "error: config: classifiers.implicit.path: tomh/toxigen_roberta does not exist"
    )
    missing = standing_alone(explicit={"checkpoint": "judge.ckpt"})
    assert error_line(dry_runs.printed(missing)) == (
        "error: config: classifiers.explicit.checkpoint: judge.ckpt does not exist"
    )


def test_only_a_classifier_that_is_given_gets_a_figure_by_category(finished, tmp_path):
    (tmp_path / "judge.ckpt").touch()
    given = standing_alone(explicit={"checkpoint": str(tmp_path / "judge.ckpt")})
    given["classifiers"]["second"] = given["classifiers"]["explicit"]
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    for config, drawn in ((tmp_path / "given.yaml", True), (TINY, False)):
        figure = RESULTS / "figures/toxicity_by_category.svg"
        ran = run_snakemake(finished, figure, "--configfile", config, "--cores", "1", "--dry-run")
        assert (ran.returncode == 0) == drawn, ran.stdout
        assert drawn or "MissingRuleException" in ran.stdout


@pytest.mark.parametrize("labels, toxic_label", [(2, 2), (1, 1), (2, "toxic"), (2, "1")])
def test_a_classifier_with_other_labels(dry_runs, tmp_path, labels, toxic_label):
    folder = judge(tmp_path / "judge", labels)
    config = standing_alone(implicit={"path": str(folder), "toxic_label": toxic_label})
    assert error_line(dry_runs.printed(config)).startswith(
        f"error: config: classifiers.implicit.toxic_label: {folder}: {toxic_label}, but the "
        "classifier has the labels 0: LABEL_0"
    )


def test_a_classifier_with_pickled_weights(dry_runs, tmp_path):
    folder = judge(tmp_path / "judge", 2, "pytorch_model.bin")
    config = standing_alone(implicit={"path": str(folder), "toxic_label": 1})
    assert "has no .safetensors weights" in error_line(dry_runs.printed(config))


def test_the_early_checks_are_among_the_jobs(dry_runs):
    rules = dry_runs.rules(TINY, {"experiment": "other"})
    assert {"check_prompt_lengths", "check_disjoint"} <= rules


def test_a_missing_key_says_what_it_is_for(dry_runs):
    printed = dry_runs.printed({"experiment": "mine"})
    assert error_line(printed) == "error: config: corpus: missing: The training text."


def test_a_mistaken_config_stops_the_command(finished, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {learning_rat: 1.0e-3}", encoding="utf-8")
    before = sorted(finished.glob("results/**/*"))
    ran = run_snakemake(finished, "--configfile", TINY, overlay, "--cores", "1")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == (
        "error: config: training.learning_rat: unknown key; did you mean learning_rate?"
    )
    assert sorted(finished.glob("results/**/*")) == before


def run_script(directory: Path, script: str, *arguments: str | Path, **settings) -> str:
    """Run a script that has to fail, and return its error."""
    ran = started(directory, script, *arguments, **settings)
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    return error_line(ran.stderr).removeprefix("error: ")


def run_well(directory: Path, script: str, *arguments: str | Path, **settings) -> None:
    ran = started(directory, script, *arguments, **settings)
    assert ran.returncode == 0, ran.stderr


def started(
    directory: Path, script: str, *arguments: str | Path, **settings
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, directory / "scripts" / script, "--settings", json.dumps(settings)]
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, "is empty"),
        (b"", "is empty"),
        (b'{"text": "one"}\n{"text": "two"\n{"text": "three"\n', ", line 2: not valid JSON"),
        ('{"text": "one"}\n'.encode("utf-16"), ": not UTF-8"),
        (b'{"body": "one"}\n', ", line 1: no field 'text'"),
        (b"[1, 2]\n", ", line 1:"),
    ],
    ids=["missing", "empty", "malformed", "encoding", "field", "record"],
)
def test_a_bad_corpus_file_is_named_with_its_line(repository, tmp_path, content, expected):
    path = tmp_path / "texts.jsonl"
    if content is not None:
        path.write_bytes(content)
    outputs = [tmp_path / name for name in ("training.jsonl", "held_out.jsonl", "report.json")]
    message = run_script(
        repository,
        "read_documents.py",
        *("--files", json.dumps([[str(path)]])),
        *("--training", outputs[0], "--held-out", outputs[1], "--report", outputs[2]),
        sources=[{"name": "texts", "text": "text", "documents": "line", "held_out": 0.5}],
        seed=1,
    )
    assert message.startswith(str(path))
    if content is not None:
        assert expected in message
    assert not any(output.exists() for output in outputs)


def test_snakemake_shows_the_line_of_a_bad_file(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    lines = '{"text": "one", "spans": []}\n' + '{"txt": "two", "spans": []}\n' * 2
    (clone / "texts.jsonl").write_text(lines, encoding="utf-8")
    overlay = {"experiment": "other", **source(files="texts.jsonl", held_out=0.5)}
    (clone / "overlay.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    wanted = "results/other/corpus/documents.jsonl"
    ran = run_snakemake(clone, wanted, "--configfile", TINY, "overlay.yaml", "--cores", "1")
    assert ran.returncode == 1
    assert error_line(ran.stdout).startswith(
        "error: config: corpus.sources.texts.files: texts.jsonl, line 2: "
    )
    assert not (clone / wanted).exists()


def test_too_small_a_vocabulary(finished, tmp_path):
    message = run_script(
        finished,
        "make_tokenizer.py",
        *("--documents", RESULTS / "corpus/documents.jsonl", "--output", tmp_path / "tokenizer"),
        vocabulary_size=200,
    )
    assert "vocabulary_size" in message and "200" in message
    assert not (tmp_path / "tokenizer").exists()


def test_query_records_among_the_test_prompts(finished, tmp_path):
    queries = tmp_path / "toxic.jsonl"
    prompts = RESULTS / "prompts/realtoxicityprompts.jsonl"
    queries.write_bytes((finished / prompts).read_bytes())
    message = run_script(
        finished,
        "check_disjoint.py",
        *("--queries", queries, "--prompts", prompts, "--output", tmp_path / "disjoint.json"),
    )
    assert "queries.toxic shares 20 prompts with benchmarks.realtoxicityprompts" in message
    assert not (tmp_path / "disjoint.json").exists()


@pytest.mark.parametrize(
    "text, benchmark, max_new_tokens, expected",
    [
        (
            "word " * 150,
            "mine",
            20,
            "prompts.txt, line 2: the prompt 'word word word word word word word word ' has ",
        ),
        (
            "short",
            "mine",
            128,
            "generation.max_new_tokens: 128 new tokens leave no room",
        ),
    ],
)
def test_prompts_without_room(finished, tmp_path, text, benchmark, max_new_tokens, expected):
    (tmp_path / "prompts.txt").write_text(f"a prompt\n{text}\n", encoding="utf-8")
    settings = {"format": "text"}
    run_well(
        finished,
        "read_prompts.py",
        *("--files", tmp_path / "prompts.txt", "--report", tmp_path / "report.json"),
        *("--output", tmp_path / f"{benchmark}.jsonl"),
        **{"prompts": settings, "needs_continuation": False, "seed": 1},
    )
    message = run_script(
        finished,
        "check_prompt_lengths.py",
        *("--tokenizer", RESULTS / "corpus/bpe/tokenizer"),
        *("--benchmarks", benchmark, "--prompts", tmp_path / f"{benchmark}.jsonl"),
        *("--output", tmp_path / "lengths.json"),
        model="small",
        architecture={"model_type": "gpt_neox"},
        block_size=128,
        max_new_tokens={benchmark: {"tokens": max_new_tokens, "key": "generation.max_new_tokens"}},
    )
    assert expected in message
    assert "models.small" in message and "generation.max_new_tokens" in message
    assert not (tmp_path / "lengths.json").exists()


def test_the_longest_prompt_that_has_room_is_generated_from(finished):
    record = finished / RESULTS / "prompts/lengths/target/toxigen.json"
    found = json.loads(record.read_text("utf-8"))
    assert found["room"] == 128 - 6
    tokenizer = load_tokenizer(finished / RESULTS / "corpus/bpe/tokenizer")
    records = read_jsonl(finished / RESULTS / "prompts/toxigen.jsonl")
    assert found["longest_prompt"] == max(
        len(tokenizer(record["prompt"])["input_ids"]) for record in records
    )


def test_a_prompt_without_a_token(finished):
    tokenizer = load_tokenizer(finished / RESULTS / "corpus/bpe/tokenizer")
    record = PromptRecord("", None, "toxic", None, None, None, "prompts.txt, line 7")
    room = Room(100, "target", 128, 28, "generation.max_new_tokens")
    with pytest.raises(InputError, match=r"^prompts\.txt, line 7: the prompt '' holds no token"):
        longest_prompt(tokenizer, [record], room, "mine")


@pytest.mark.parametrize(
    "change, expected",
    [({"weights_sha256": "0" * 64}, "made from weights"), ({"seed": 5}, "drawn with another seed")],
)
def test_continuations_of_another_model_or_seed(finished, tmp_path, change, expected):
    model = Path("target/none/0")
    generations = finished / RESULTS / "evaluation" / model / "toxigen/generations.jsonl"
    records = read_jsonl(generations)
    records[1] |= change
    write_jsonl(tmp_path / "generations.jsonl", records)
    message = run_script(
        finished,
        "measure_toxicity.py",
        *("--generations", tmp_path / "generations.jsonl"),
        *("--training-record", RESULTS / "models" / model / "training.json"),
        *("--benchmarks", "toxigen", "--model", "target", "--method", "none"),
        *("--training-seed", "0", "--output", tmp_path / "metrics.json"),
        seed=1,
    )
    assert message.startswith(f"{tmp_path / 'generations.jsonl'}, line 2: {expected}")
    assert not (tmp_path / "metrics.json").exists()


def test_poisoned_documents_are_counted_and_inject_no_special_token(repository, tmp_path):
    lines = [json.dumps({"text": f"a plain document {number}"}).encode() for number in range(300)]
    lines[10] = b'{"text": "bytes \xff\xfe"}'
    lines[20] = b'{"text": "' + b"x" * 50_000_000 + b'"}'
    lines[30] = b'{"text": "a \\u0007 bell and a \x00 byte"}'
    lines[40] = b'{"text": "<script>alert(1)</script>"}'
    lines[50] = b'{"text": " \\t\\n "}'
    lines[60] = b'{"text": "before <|endoftext|> after"}'
    lines[70] = b'{"text": "cut off'
    lines[80] = b'{"text": [' + b"[" * 100_000
    (tmp_path / "texts.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    outputs = {name: tmp_path / f"{name}.jsonl" for name in ("training", "held_out")}
    run_well(
        repository,
        "read_documents.py",
        *("--files", json.dumps([[str(tmp_path / "texts.jsonl")]])),
        *("--training", outputs["training"], "--held-out", outputs["held_out"]),
        *("--report", tmp_path / "documents.json"),
        sources=[{"name": "texts", "held_out": 0.1}],
        seed=1,
    )
    report = json.loads((tmp_path / "documents.json").read_text("utf-8"))
    counts = report["sources"]["texts"]
    assert [named.split(":")[0] for named in counts.pop("first_malformed")] == [
        f"{tmp_path / 'texts.jsonl'}, line {number}" for number in (71, 81)
    ]
    assert counts.pop("characters") > 0
    assert counts == {
        "documents": 295,
        "skipped_empty": 1,
        "skipped_not_utf8": 1,
        "skipped_oversized": 1,
        "skipped_malformed": 2,
        "removed_control_characters": 2,
    }
    records = read_jsonl(outputs["training"]) + read_jsonl(outputs["held_out"])
    texts = {record["text"] for record in records}
    expected = {"before <|endoftext|> after", "<script>alert(1)</script>", "a  bell and a  byte"}
    assert expected <= texts and len(records) == sum(report["documents"].values()) == 295
    write_jsonl(tmp_path / "all.jsonl", records)
    arguments = ["--documents", tmp_path / "all.jsonl", "--output"]
    run_well(repository, "make_tokenizer.py", *arguments, tmp_path / "bpe", vocabulary_size=300)
    run_well(
        repository,
        "tokenize_documents.py",
        *(*arguments, tmp_path / "corpus", "--tokenizer", tmp_path / "bpe"),
        **{"block_size": 64, "shards": 1, "truth": False},
    )
    corpus = open_corpus(tmp_path / "corpus")
    tokens = np.concatenate(corpus.tokens.shards).ravel()
    documents = np.concatenate(corpus.documents.shards).ravel()
    # One end of text for each document, and none that a text asked for.
    ends = (tokens == corpus.meta["end_of_text"]) & (documents >= 0)
    assert ends.sum() == 295


UNWEIGHTED = {
    "unmoved": False,
    "pooling": 0.0,
    "pool_over": "token",
    "token_weight": "none",
    "token_weight_power": 1.0,
    "rank_by": "flagged",
    "harmless_sources": [],
}


def score_arguments(finished: Path) -> list[str | Path]:
    """A corpus with its scores, and what they are made from."""
    scored = read_json(finished / SCORES / "shard-00000.json")["settings"]
    return [
        *("--corpus", RESULTS / "corpus/bpe"),
        *("--scores", SCORES / "shard-00000.npy", SCORES / "shard-00001.npy"),
        *("--directions", SCORES.parents[1] / "direction.safetensors"),
        *("--scored", json.dumps(scored)),
    ]


@pytest.mark.parametrize("change", [{"limit": 0.0}, {"quantile": 1.0}])
def test_a_mask_that_selects_nothing(finished, tmp_path, change):
    settings = {"quantile": 0.9, "window": 0, "limit": 0.05, "documents": "block"}
    message = run_script(
        finished,
        "select_tokens.py",
        *score_arguments(finished),
        *("--output", tmp_path / "selection"),
        **(settings | UNWEIGHTED | change),
    )
    assert "selects no token" in message and "quantile" in message and "limit" in message
    assert not (tmp_path / "selection").exists()


def test_a_changed_score_file_is_refused(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    path = clone / SCORES / "shard-00000.npy"
    scores = np.load(path)
    scores[0, 1] += 1
    np.save(path, scores)
    message = run_script(
        clone,
        "select_tokens.py",
        *score_arguments(finished),
        *("--output", tmp_path / "selection"),
        **{"quantile": 0.9, "window": 0, "limit": 0.05, "documents": "block"},
        **UNWEIGHTED,
    )
    assert "shard-00000.npy" in message


def test_a_selection_from_a_sample_of_the_scores_is_refused(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    path = clone / SCORES / "shard-00000.npy"
    scores = np.load(path)
    scores[5] = np.nan
    write_array(path, scores)
    message = run_script(
        clone,
        "select_tokens.py",
        *score_arguments(finished),
        *("--output", tmp_path / "selection"),
        **{"quantile": 0.9, "window": 0, "limit": 0.05, "documents": "block"},
        **UNWEIGHTED,
    )
    assert "influence.scores.blocks" in message


def test_null_scores_are_skipped_and_counted(finished, tmp_path):
    records = [
        json.loads(line)
        for line in (finished / RESULTS / "planted/queries.jsonl").read_text("utf-8").splitlines()
    ]
    for record in records[:3]:
        record["continuation"]["toxicity"] = None
    (tmp_path / "records.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    settings = {
        "prompts": {"format": "realtoxicityprompts", "continuation_toxicity": [0.0, 1.0]},
        "needs_continuation": True,
        "seed": 1,
    }
    command = [sys.executable, finished / "scripts/read_prompts.py"]
    command += ["--settings", json.dumps(settings), "--files", tmp_path / "records.jsonl"]
    command += ["--output", tmp_path / "kept.jsonl", "--report", tmp_path / "report.json"]
    subprocess.run(command, check=True, capture_output=True)
    kept = {record["prompt"] for record in read_jsonl(tmp_path / "kept.jsonl")}
    assert kept == {record["prompt"]["text"] for record in records[3:]}
    counts = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert 3 in [value for value in counts.values() if isinstance(value, int)]

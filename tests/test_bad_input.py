"""What a user's mistake is answered with: one line, early, that says what to correct."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, copy_run, environment, error_line, run_snakemake
from ifguide.artifacts import read_json, read_jsonl, write_array, write_json

RESULTS = Path("results/tiny")
SCORES = RESULTS / "influence/proxy/differential/scores/loss"
TOXIC = {"format": "realtoxicityprompts", "files": "{planted}/queries.jsonl"}


def source(**settings) -> dict:
    return {"corpus": {"sources": [{"name": "texts", **settings}]}}


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
        (source(), "corpus.sources.0: give exactly one of files, or hub with revision"),
        (
            source(files="a.txt", hub="some/texts", revision="0" * 40),
            "corpus.sources.0: give only one of files, or hub with revision",
        ),
        (
            source(hub="some/texts", revision="main"),
            "corpus.sources.0.revision: 'main' is not a full commit hash of 40 hexadecimal digits",
        ),
        (
            {"classifiers": {"explicit": {"hub": "unbiased"}}},
            "classifiers.explicit: give only one of train, or hub",
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
            "evaluation.methods: 'if-guide' is none of ascent, ifguide, none, repair",
        ),
        (
            {"methods": {"ifguide": {"suppress": {"selection": "bottom"}}}},
            "methods.ifguide.suppress.selection: 'bottom' is none of top, wide",
        ),
        (
            {"influence": {"directions": {"differential": {"safe": "harmless"}}}},
            "influence.directions.differential.safe: 'harmless' is none of safe, toxic",
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
            {
                "tokenizers": {"other": {"vocabulary_size": 600}},
                "models": {"target": {"tokenizer": "other"}},
            },
            "models.target.tokenizer: is not that of proxy, which scores the tokens; give both the "
            "same tokenizer",
        ),
        (
            {"models": {"target": {"architecture": {"max_position_embeddings": 64}}}},
            "corpus.block_size: 128 is longer than "
            "models.target.architecture.max_position_embeddings, 64",
        ),
        (
            {"models": {"target": {"architecture": {"file": "pythia.json"}}}},
            "models.target.architecture.file: pythia.json does not exist",
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
    ran = subprocess.run(
        [
            sys.executable,
            directory / "scripts" / script,
            "--settings",
            json.dumps(settings),
            *map(str, arguments),
        ],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    return error_line(ran.stderr).removeprefix("error: ")


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, "is empty"),
        (b"", "is empty"),
        (b'{"text": "one"}\n{"text": "two"\n', ", line 2: not valid JSON"),
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
    (clone / "texts.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n', encoding="utf-8")
    overlay = {"experiment": "other", **source(files="texts.jsonl", held_out=0.5)}
    (clone / "overlay.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    wanted = "results/other/corpus/documents.jsonl"
    ran = run_snakemake(clone, wanted, "--configfile", TINY, "overlay.yaml", "--cores", "1")
    assert ran.returncode == 1
    assert error_line(ran.stdout).startswith("error: texts.jsonl, line 2: ")
    assert not (clone / wanted).exists()


def test_too_small_a_vocabulary(finished, tmp_path):
    message = run_script(
        finished,
        "train_tokenizer.py",
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


UNWEIGHTED = {"pooling": 0.0, "token_weight": "none", "token_weight_power": 1.0}


@pytest.mark.parametrize("change", [{"limit": 0.0}, {"quantile": 1.0}])
def test_a_mask_that_selects_nothing(finished, tmp_path, change):
    settings = {"quantile": 0.9, "window": 0, "limit": 0.05, "documents": "block"}
    message = run_script(
        finished,
        "select_tokens.py",
        *("--corpus", RESULTS / "corpus/bpe"),
        *("--scores", SCORES / "shard-00000.npy", SCORES / "shard-00001.npy"),
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
        *("--corpus", RESULTS / "corpus/bpe"),
        *("--scores", SCORES / "shard-00000.npy", SCORES / "shard-00001.npy"),
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
    record = read_json(path.with_suffix(".json"))
    write_json(path.with_suffix(".json"), record | {"scores_sha256": write_array(path, scores)})
    message = run_script(
        clone,
        "select_tokens.py",
        *("--corpus", RESULTS / "corpus/bpe"),
        *("--scores", SCORES / "shard-00000.npy", SCORES / "shard-00001.npy"),
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

"""Models and data sets of a hub, fetched from a real server on this machine."""

import glob
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, RobertaConfig, RobertaForSequenceClassification

from conftest import TINY, copy_repository, environment, error_line, snakemake_command
from hub_server import REVISION, running_hub
from ifguide.data.corpus import train_tokenizer
from ifguide.data.repositories import Repository, check_patterns, matching
from ifguide.errors import InputError
from ifguide.evaluation.classifiers import train_classifier_tokenizer
from ifguide.files.artifacts import read_jsonl

SCRIPT = Path(__file__).parents[1] / "scripts" / "fetch_repository.py"
# The hub's client waits between its attempts; only the waiting is left out.
WITHOUT_WAITING = (
    "import runpy, sys, time; time.sleep = lambda seconds: None; sys.argv = sys.argv[1:];"
    "sys.path.insert(0, sys.argv[0].rpartition('/')[0]);"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
RECORDS = b'{"text": "one"}\n{"text": "two"}\n'
DATA_SET = {
    "README.md": b"# texts\n",
    "texts.py": b"raise SystemExit\n",
    "data/a.jsonl": RECORDS,
    "data/b.jsonl": RECORDS,
    "data/old/c.jsonl": RECORDS,
    "data/table.parquet": b"PAR1" * 1000,
    "data/pickle.bin": b"\x80\x04.",
}


@pytest.fixture
def hub():
    with running_hub() as server:
        server.repositories["datasets", "org/texts"] = dict(DATA_SET)
        yield server


class Fetch:
    def __init__(self, hub, folder: Path) -> None:
        self.hub = hub
        self.directory = folder / "data"
        self.record = folder / "record.json"

    def run(self, **changes) -> subprocess.CompletedProcess[str]:
        settings = {
            "kind": "dataset",
            "hub": "org/texts",
            "revision": REVISION,
            "files": ["data/*.jsonl"],
        } | changes
        arguments = ["--settings", json.dumps(settings), "--directory", self.directory]
        arguments += ["--instead", "give local `files`", "--output", self.record]
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_WAITING, SCRIPT, *arguments],
            env=os.environ | self.hub.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def succeeds(self, **changes) -> list[str]:
        done = self.run(**changes)
        assert done.returncode == 0, done.stderr
        return self.fetched()

    def refused(self, **changes) -> str:
        done = self.run(**changes)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not self.record.exists()
        return error_line(done.stderr)

    def fetched(self) -> list[str]:
        """The files below the directory, less what the client and the record keep there."""
        return sorted(
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file() and not path.relative_to(self.directory).parts[0].startswith(".")
        )

    def asked_for(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path in self.hub.requests if method == "GET"]


@pytest.fixture
def fetch(hub, tmp_path):
    return Fetch(hub, tmp_path)


def test_only_the_files_that_match_are_fetched(fetch):
    assert fetch.succeeds() == ["data/a.jsonl", "data/b.jsonl"]
    assert (fetch.directory / "data/a.jsonl").read_bytes() == RECORDS
    record = json.loads(fetch.record.read_text("utf-8"))
    assert sorted(record["sha256"]) == ["data/a.jsonl", "data/b.jsonl"]
    assert record["revision"] == REVISION


def test_a_second_run_asks_nothing(fetch):
    fetch.succeeds()
    fetch.hub.requests.clear()
    fetch.record.unlink()
    fetch.succeeds()
    assert fetch.hub.requests == []
    assert fetch.record.exists()
    # Another pattern of the same revision fetches only what is new.
    assert "data/old/c.jsonl" in fetch.succeeds(files=["data/**/*.jsonl"])
    assert "a.jsonl" not in fetch.asked_for() and "c.jsonl" in fetch.asked_for()


def test_a_missing_file_is_fetched_again(fetch):
    fetch.succeeds()
    (fetch.directory / "data/a.jsonl").unlink()
    assert fetch.succeeds() == ["data/a.jsonl", "data/b.jsonl"]


@pytest.mark.parametrize("fetched_before", [True, False])
def test_a_file_with_other_content_is_never_overwritten(fetch, fetched_before):
    path = fetch.directory / "data/a.jsonl"
    if fetched_before:
        fetch.succeeds()
        fetch.record.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    message = fetch.refused()
    assert message.startswith(f"error: {path}: is not the file of org/texts@{REVISION}")
    assert path.read_bytes() == b"mine"


def test_a_model_brings_neither_code_nor_pickles(fetch):
    fetch.hub.repositories["models", "org/model"] = {
        "config.json": b"{}",
        "model.safetensors": b"weights" * 1000,
        "pytorch_model.bin": b"\x80\x04.",
        "modeling.py": b"raise SystemExit\n",
        "tokenizer.json": b"{}",
        "vocab.txt": b"a\n",
        "onnx/model.onnx": b"x",
        "onnx/config.json": b"{}",
    }
    patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
    assert fetch.succeeds(kind="model", hub="org/model", files=patterns) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "vocab.txt",
    ]


def test_a_model_with_pickled_weights_only(fetch):
    fetch.hub.repositories["models", "org/model"] = {"pytorch_model.bin": b"\x80\x04."}
    message = fetch.refused(kind="model", hub="org/model", files=["*.safetensors"])
    assert "holds none of *.safetensors; its pickled weights are never loaded" in message


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"revision": "f" * 40}, "org/texts@" + "f" * 40 + ": the repository has no such revision"),
        ({"revision": "main"}, "org/texts@main: the revision is not a full commit hash"),
        ({"hub": "org/absent"}, f"org/absent@{REVISION}: no such dataset on the hub"),
        ({"files": ["*.csv"]}, f"org/texts@{REVISION}: no file matches *.csv; its data files are "),
        ({"files": ["data/*"]}, "'data/*' may match files that are not data"),
        ({"files": ["../a.json"]}, "'../a.json' is not a path within the repository"),
    ],
    ids=["revision", "branch", "repository", "pattern", "any-file", "outside"],
)
def test_what_is_not_there(fetch, change, expected):
    assert fetch.refused(**change).startswith(f"error: {expected}")


def test_a_truncated_file_is_not_taken(fetch):
    fetch.hub.truncated.add("data/a.jsonl")
    message = fetch.refused()
    assert message.startswith(f"error: org/texts@{REVISION}: cannot be fetched from the hub (")
    assert message.endswith("; try again later, or give local `files`")
    assert "data/a.jsonl" not in fetch.fetched()
    fetch.hub.truncated.clear()
    assert fetch.succeeds() == ["data/a.jsonl", "data/b.jsonl"]


@pytest.mark.parametrize("name", ["data/a.jsonl", "data/table.parquet"])
def test_a_file_with_another_hash_is_not_taken(fetch, name):
    fetch.hub.damaged.add(name)
    assert f"{name} arrived damaged" in fetch.refused(files=[name])
    assert name not in fetch.fetched()
    fetch.hub.damaged.clear()
    assert fetch.succeeds(files=[name]) == [name]


def test_a_server_that_is_gone(fetch, tmp_path):
    with running_hub() as gone:
        pass
    message = Fetch(gone, tmp_path).refused()
    assert f"org/texts@{REVISION}: cannot be fetched from the hub (" in message
    assert "Connection refused" in message and message.endswith("or give local `files`")


@given(
    st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join),
    st.lists(st.sampled_from(["a", "?", "*", "**", "a*"]), min_size=1, max_size=4).map("/".join),
)
def test_patterns_match_as_they_do_on_a_disk(tmp_path_factory, name, pattern):
    pattern += ".json"
    folder = tmp_path_factory.mktemp("tree")
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = glob.glob(f"{glob.escape(str(folder))}/{pattern}", recursive=True)
    assert bool(matching([f"{name}.json"], [pattern])) == bool(found)


@pytest.mark.parametrize("pattern", ["*.bin", "*.py", "*", "model.ckpt", "data/train-*", "*.json*"])
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_patterns_that_could_bring_code_are_refused(kind, pattern):
    with pytest.raises(InputError, match="may match files that are not data"):
        check_patterns(Repository(kind, "org/name", REVISION, (pattern,)))


def model_files(folder: Path) -> dict[str, bytes]:
    """A small model's repository: an architecture and a tokenizer, and what must stay there."""
    tokenizer = train_tokenizer(["some words of a text", "and other words"], 300)
    tokenizer.save_pretrained(folder)
    architecture = GPTNeoXConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    architecture.architectures = ["GPTNeoXForCausalLM"]
    architecture.save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"pytorch_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit\n"}


def judge_files(folder: Path) -> dict[str, bytes]:
    """A sequence classifier's repository."""
    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    train_classifier_tokenizer(["some words"], 300, 64).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_fetch_takes_everything_and_then_no_network_is_needed(hub, tmp_path):
    documents = [f"document {number} has some words of its own" for number in range(40)]
    hub.repositories["datasets", "org/texts"]["data/a.jsonl"] = "".join(
        json.dumps({"text": text}) + "\n" for text in documents
    ).encode()
    hub.repositories["models", "org/model"] = model_files(tmp_path / "model")
    hub.repositories["models", "org/judge"] = judge_files(tmp_path / "judge")
    prompt = {
        "prompt": {"text": "some", "toxicity": 0.1},
        "continuation": {"text": " words", "toxicity": 0.9},
    }
    hub.repositories["datasets", "org/prompts"] = {"prompts.jsonl": json.dumps(prompt).encode()}
    pinned = {"revision": REVISION}
    clone = copy_repository(tmp_path / "a clone")
    config = yaml.safe_load((clone / TINY).read_text("utf-8"))
    config["experiment"] = "hub"
    config["corpus"]["sources"].append(
        {"name": "web", "hub": "org/texts", "files": "data/a.jsonl", "held_out": 0.5} | pinned
    )
    config["tokenizers"]["bpe"] = {"hub": "org/model"} | pinned
    config["models"]["proxy"]["architecture"] = {"hub": "org/model", "hidden_size": 8} | pinned
    config["queries"]["toxic"] = {
        "format": "realtoxicityprompts",
        "hub": "org/prompts",
        "files": "*.jsonl",
    } | pinned
    config["classifiers"]["implicit"] = {"hub": "org/judge", "toxic_label": 1} | pinned
    config["training"]["max_steps"] = 1
    (clone / "hub.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def snakemake(*arguments: str) -> str:
        ran = subprocess.run(
            snakemake_command(*arguments, "--cores", "2", "--configfile", "hub.yaml"),
            cwd=clone,
            env=environment() | hub.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    snakemake("fetch")
    names = {path.name for path in (clone / "data/hub").rglob("*") if path.is_file()}
    assert {"a.jsonl", "tokenizer.json", "config.json", "model.safetensors"} <= names
    assert not {"modeling.py", "pytorch_model.bin", "texts.py", "b.jsonl"} & names

    hub.repositories.clear()
    hub.requests.clear()
    results = clone / "results/hub"
    snakemake(
        *("results/hub/models/proxy/none/0/training.json", "results/hub/queries/toxic.jsonl"),
    )
    assert hub.requests == []
    read = read_jsonl(results / "corpus/documents.jsonl")
    held_out = read_jsonl(results / "corpus/held_out.jsonl")
    web = [record["text"] for record in read + held_out if record["source"] == "web"]
    assert sorted(web) == sorted(documents)
    trained = json.loads((results / "models/proxy/none/0/config.json").read_text("utf-8"))
    assert (trained["hidden_size"], trained["max_position_embeddings"]) == (8, 256)
    assert trained["intermediate_size"] == 32
    assert len(read_jsonl(results / "queries/toxic.jsonl")) == 1
    assert "Nothing to be done" in snakemake("fetch")

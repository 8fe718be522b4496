"""What is written down of a run's code and data, so that it can be repeated."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import TINY, copy_repository, run_snakemake
from ifguide.errors import InputError
from ifguide.files.checksums import file_sha256
from ifguide.files.provenance import code_state, data_state

RESULTS = Path("results/tiny")


@pytest.fixture
def git(tmp_path):
    """Git in a repository of one committed file; a call returns what it prints."""

    def call(*arguments: str) -> bytes:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout

    call("init")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    call("add", "file")
    call("commit", "--message", "one")
    return call


def test_the_state_of_the_code_is_its_commit_and_what_was_changed_since(git, tmp_path):
    head = git("rev-parse", "HEAD").decode().strip()
    clean = {
        "commit": head,
        "uncommitted_changes": False,
        "uncommitted_diff_sha256": None,
        "untracked_files": 0,
    }
    assert code_state(tmp_path) == clean
    (tmp_path / "new").write_text("new", encoding="utf-8")
    assert code_state(tmp_path) == clean | {"untracked_files": 1}
    hashes = set()
    for content in (b"two", b"three", b"\xff\x00 no text"):
        (tmp_path / "file").write_bytes(content)
        state = code_state(tmp_path)
        assert state["uncommitted_changes"] is True
        diff = git("diff", "--binary", "HEAD")
        assert state["uncommitted_diff_sha256"] == hashlib.sha256(diff).hexdigest()
        hashes.add(state["uncommitted_diff_sha256"])
    assert len(hashes) == 3
    # What is staged differs from the commit all the same.
    git("add", "file")
    assert code_state(tmp_path)["uncommitted_diff_sha256"] in hashes


def test_code_that_is_not_itself_a_repository_has_no_state(git, tmp_path):
    (tmp_path / "below").mkdir()
    assert set(code_state(tmp_path / "below").values()) == {None}


def test_files_that_take_long_to_hash_are_told_by_size_and_time(tmp_path):
    small, large, missing = (str(tmp_path / name) for name in ("small", "large", "missing"))
    Path(small).write_bytes(b"abc")
    with open(large, "wb") as file:
        file.truncate(2**30 + 1)
    state = data_state([large, small, missing, str(tmp_path)])
    assert state["data_sha256"] == {small: hashlib.sha256(b"abc").hexdigest()}
    assert state["data_not_hashed"].keys() == {large}
    assert state["data_not_hashed"][large]["bytes"] == 2**30 + 1
    assert state["data_not_hashed"][large]["modified"].endswith("+00:00")


def test_many_files_take_no_longer_than_one(tmp_path):
    paths = [str(tmp_path / str(size)) for size in (3, 4, 5)]
    for size, path in zip((3, 4, 5), paths, strict=True):
        Path(path).write_bytes(b"x" * size)
    state = data_state(reversed(paths), most_bytes=7)
    assert list(state["data_sha256"]) == paths[:2]
    assert list(state["data_not_hashed"]) == paths[2:]


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "texts").write_text("text", encoding="utf-8")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("ifguide.files.provenance.file_sha256", refuse)
    with pytest.raises(InputError, match=r"texts: cannot be read \(Permission denied\)"):
        data_state([str(tmp_path / "texts")])


def test_a_run_records_the_files_that_its_config_names(finished, tmp_path):
    clone = copy_repository(tmp_path / "clone")
    texts = ["lambada.jsonl", "queries.jsonl", "words.txt"]
    text = (clone / TINY).read_text("utf-8")
    for name in texts:
        text = text.replace(f"{{planted}}/{name}", f"{{data_dir}}/{name}")
    config = yaml.safe_load(text)
    config["classifiers"]["explicit"] = {"checkpoint": "given/explicit/model.ckpt"}
    config["classifiers"]["implicit"] = {"path": "given/implicit", "toxic_label": "toxic"}
    config["tokenizers"]["bpe"] = {"path": "given/tokenizer"}
    # A judge that is given has no held-out texts to tell a rate of false alarms by.
    config["methods"]["toxicity_filter"]["filter"]["threshold"] = 0.5
    (clone / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (clone / "data").mkdir()
    for name in [*texts, "pairs.tsv"]:
        shutil.copy(finished / RESULTS / "planted" / name, clone / "data" / name)
    shutil.copytree(finished / RESULTS / "classifiers", clone / "given")
    shutil.copytree(finished / RESULTS / "corpus/bpe/tokenizer", clone / "given/tokenizer")
    ran = run_snakemake(
        clone, RESULTS / "passages/lambada.jsonl", "--configfile", "config.yaml", "--cores", "1"
    )
    assert ran.returncode == 0, ran.stdout
    record = yaml.safe_load((clone / RESULTS / "run_config.yaml").read_text(encoding="utf-8"))
    # No config names data/pairs.tsv.
    expected = [clone / "data" / name for name in texts]
    for ending in (".json", ".safetensors", ".ckpt"):
        expected += clone.glob(f"given/*/[!.]*{ending}")
    assert record["data_sha256"] == {
        str(path.relative_to(clone)): file_sha256(path) for path in expected
    }
    assert record["data_not_hashed"] == {}

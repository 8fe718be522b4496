"""Mistakes beside the config's own keys: names, paths, dates and folders, each told in one line."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from conftest import DryRuns, copy_repository, error_line, run_snakemake
from own_texts import SMALL, own_config, write_texts


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    clone = copy_repository(tmp_path_factory.mktemp("mistakes") / "clone")
    write_texts(clone)
    return clone


@pytest.fixture(scope="module")
def dry(clone, tmp_path_factory) -> Iterator[DryRuns]:
    """Dry runs where nothing has run."""
    runs = DryRuns(clone, tmp_path_factory.mktemp("configs"))
    yield runs
    runs.close()


def source(files: str) -> dict:
    return {"corpus": {"sources": [{"name": "posts", "files": files}]}}


def given(description: str) -> Callable[[Path], None]:
    def write(clone: Path) -> None:
        (clone / "given").mkdir(exist_ok=True)
        (clone / "given/config.json").write_text(description, encoding="utf-8")

    return write


def named(name: str) -> Callable[[Path], None]:
    return lambda clone: (clone / name).write_text('{"text": "a"}\n', encoding="utf-8")


def other(**model) -> dict:
    return {
        "models": {"other": {"tokenizer": "bpe", **model}},
        "evaluation": {"models": ["other"]},
    }


FROM_GIVEN = other(path="given")
THE_FILE = {"file": "given/config.json"}
FROM_FILE = other(architecture=THE_FILE)
POSITIONS = {"model_type": "gpt_neox", **SMALL, "max_position_embeddings": "64"}

MISTAKES = {
    "a number for a name": (
        None,
        {"experiment": 2024},
        'experiment: 2024 is not text; write "2024", in quotes',
    ),
    "a truth value for a name": (
        None,
        {"influence": {"model": True}},
        'influence.model: true is not text; write "true", in quotes',
    ),
    "a key that is a truth value": (
        None,
        {"methods": {False: {}}},
        'methods: a key that YAML does not read as text, False; write it in quotes, such as "no"',
    ),
    "a key that is a number": (
        None,
        {"models": {7: {}}},
        'models: a key that YAML does not read as text, 7; write it in quotes, such as "7"',
    ),
    "a very long name": (
        None,
        {"experiment": "ab" + "c1d" * 100},
        "experiment: 'abc1dc1dc1dc1dc1dc1d...' has 302 characters; give at most 100",
    ),
    "a long run of one character": (
        None,
        {"experiment": "a" * 40},
        f"experiment: '{'a' * 40}' repeats itself too often; give another name",
    ),
    "a long run of two characters": (
        None,
        {"queries": {"ab" * 20: own_config()["queries"]["safe"]}},
        f"queries: '{'ab' * 20}' repeats itself too often; give another name",
    ),
    "the home folder by its sign": (
        None,
        source("~/posts.jsonl"),
        "corpus.sources.posts.files: no file matches ~/posts.jsonl; `~` is not expanded in ",
    ),
    "the home folder by its variable": (
        None,
        source("$HOME/posts.jsonl"),
        "corpus.sources.posts.files: no file matches $HOME/posts.jsonl; `$` is not expanded",
    ),
    "brackets in a pattern": (
        None,
        source("texts/[posts].jsonl"),
        "corpus.sources.posts.files: no file matches texts/[posts].jsonl; `[` begins a set of",
    ),
    "braces in a path that was found": (
        named("brace {a}.jsonl"),
        source("brace*.jsonl"),
        "corpus.sources.posts.files: brace {a}.jsonl: Snakemake takes what is in braces for a",
    ),
    "a model's configuration that is a list": (
        given("[1]"),
        FROM_GIVEN,
        "given/config.json: no `model_type`, so not the configuration of a model",
    ),
    "a model's configuration that was cut": (
        given("{"),
        FROM_GIVEN,
        "given/config.json, line 1: not valid JSON (",
    ),
    "an architecture's file that is a list": (
        given("[1]"),
        FROM_FILE,
        "given/config.json: no `model_type`, so not the configuration of a model",
    ),
    "positions in quotation marks": (
        None,
        other(architecture=POSITIONS),
        "models.other: '64' is not a number of positions; write a whole number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(clone, dry, mistake):
    write, changes, expected = MISTAKES[mistake]
    if write:
        write(clone)
    printed = dry.printed(own_config(**changes))
    assert error_line(printed).startswith(f"error: config: {expected}")
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["texts/more [1].jsonl", "-posts.jsonl", "texts/it's $HOME.jsonl"])
def test_a_path_that_is_itself_a_file_is_that_file(clone, dry, name):
    named(name)(clone)
    assert "read_documents" in dry.printed(own_config(**source(name)))
    if name.startswith("-"):
        config = clone / "mine.yaml"
        prompts = {"kind": "prompts", "format": "text", "files": "-p.txt"}
        (clone / "-p.txt").write_text("one\ntwo\n")
        changes = own_config(experiment="hyphen", benchmarks={"more": prompts})
        config.write_text(yaml.safe_dump(changes), encoding="utf-8")
        wanted = "results/hyphen/prompts/more.jsonl"
        ran = run_snakemake(clone, wanted, "--configfile", config, "--cores", "1")
        assert ran.returncode == 0, ran.stdout


def test_a_source_that_is_dated_in_the_future(clone, dry):
    path = clone / "texts/posts.jsonl"
    status = path.stat()
    os.utime(path, (status.st_mtime + 1e7, status.st_mtime + 1e7))
    printed = dry.printed(own_config())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert error_line(printed).startswith("error: texts/posts.jsonl: dated in the future, so that")
    assert "`touch texts/posts.jsonl`" in printed


@pytest.mark.parametrize("name", ["results", "logs", "results/mine", "logs/mine"])
def test_a_file_where_a_folder_has_to_be(tmp_path, name):
    clone = copy_repository(tmp_path / "clone")
    write_texts(clone)
    (clone / name).parent.mkdir(exist_ok=True)
    (clone / name).touch()
    (clone / "mine.yaml").write_text(yaml.safe_dump(own_config()), encoding="utf-8")
    ran = run_snakemake(clone, "read_documents", "--configfile", "mine.yaml", "--cores", "1")
    assert ran.returncode == 1 and "Traceback" not in ran.stdout
    assert error_line(ran.stdout) == (
        f"error: {name}: a file, where a folder has to be; move it away"
    )


def test_a_project_folder_in_braces(tmp_path):
    clone = copy_repository(tmp_path / "{x}")
    write_texts(clone)
    (clone / "mine.yaml").write_text(yaml.safe_dump(own_config()), encoding="utf-8")
    ran = run_snakemake(clone, "read_documents", "--configfile", "mine.yaml", "--cores", "1")
    assert ran.returncode == 1 and "Traceback" not in ran.stdout
    assert error_line(ran.stdout) == (
        f"error: {clone}: braces in the path of this workflow, which Snakemake takes for "
        "wildcards; move it to another folder"
    )

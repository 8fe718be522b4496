"""Results know what made them: after a move, with another input, and at the end of a run."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import copy_repository, error_line, rules_to_run, run_snakemake
from own_texts import own_config, write_texts

DOCUMENTS = "results/mine/corpus/documents.jsonl"


def config(clone: Path, **changes) -> str:
    (clone / "mine.yaml").write_text(yaml.safe_dump(own_config(**changes)), encoding="utf-8")
    return "mine.yaml"


def snakemake(clone: Path, *arguments: str, **changes):
    return run_snakemake(
        clone, DOCUMENTS, "--configfile", config(clone, **changes), "--cores", "1", *arguments
    )


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> Path:
    """A clone in which the documents were read, and what the run printed, in printed.txt."""
    clone = copy_repository(tmp_path_factory.mktemp("stale") / "clone")
    write_texts(clone)
    ran = snakemake(clone)
    assert ran.returncode == 0, ran.stdout
    (clone / "printed.txt").write_text(ran.stdout, encoding="utf-8")
    return clone


@pytest.fixture
def moved(read, tmp_path) -> Path:
    """The same clone elsewhere, as a copy of the results without Snakemake's own folder."""
    clone = tmp_path / "moved"
    shutil.copytree(read, clone, ignore=shutil.ignore_patterns(".snakemake"))
    return clone


def test_a_run_of_one_stage_prints_what_it_made(read):
    printed = (read / "printed.txt").read_text("utf-8")
    assert "made     results/mine/corpus/\n" in printed
    assert "results_table" not in printed


def test_moved_results_are_what_they_were(moved):
    assert rules_to_run(snakemake(moved, "--dry-run").stdout) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"corpus": {"sources": [{"name": "posts", "files": "texts/posts.jsonl", "limit": 9}]}},
    ],
)
def test_moved_results_of_another_config_are_made_again(moved, changes):
    assert rules_to_run(snakemake(moved, "--dry-run", **changes).stdout) == {"read_documents"}


def test_records_that_are_damaged_leave_everything_as_it_is(moved):
    (moved / "results/mine/.snakemake_records.json").write_text("[1")
    (moved / "results/mine/.inputs.json").write_text("[1")
    assert rules_to_run(snakemake(moved, "--dry-run").stdout) == set()


def replaced(clone: Path, year_ago: bool) -> Path:
    posts = clone / "texts/posts.jsonl"
    status = posts.stat()
    posts.write_bytes(posts.read_bytes().replace(b"cat", b"dog"))
    if year_ago:
        past = status.st_mtime - 3e7
        os.utime(posts, (past, past))
    return posts


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_an_input_that_was_replaced_by_an_older_one(moved, dry):
    posts = replaced(moved, year_ago=True)
    ran = snakemake(moved, *dry)
    assert ran.returncode == 1
    assert error_line(ran.stdout).startswith(
        "error: texts/posts.jsonl: not the file that these results were made from, but older than "
        "they are, so that they would be taken for current; `touch texts/posts.jsonl` and run"
    )
    posts.touch()
    assert rules_to_run(snakemake(moved, "--dry-run").stdout) == {"read_documents"}


def test_an_input_that_was_replaced_by_a_newer_one(moved):
    replaced(moved, year_ago=False)
    assert rules_to_run(snakemake(moved, "--dry-run").stdout) == {"read_documents"}


def test_an_input_with_another_date_alone_is_no_other(moved):
    os.utime(moved / "texts/posts.jsonl", (1, 1))
    assert rules_to_run(snakemake(moved, "--dry-run").stdout) == set()

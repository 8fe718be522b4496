"""Lists of files that travel to a job: the same paths arrive, however many they are."""

import json

import pytest

from conftest import copy_repository, read_tiny, run_snakemake
from ifguide.data.file_lists import LONGEST_LIST, as_arguments, from_arguments
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json


def write_files(folder, count, width=5):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:0{width}d}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(f"The text of file {number} is a text.\n", encoding="utf-8")
    return list(map(str, paths))


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_the_paths_that_arrive_are_those_that_were_sent(tmp_path, count):
    paths = write_files(tmp_path, count)
    pattern = f"{tmp_path}/*.txt"
    arguments = as_arguments(paths, pattern)
    assert sum(map(len, arguments)) <= LONGEST_LIST + len(pattern)
    assert from_arguments(arguments) == paths
    # By no pattern there is no other way than to name them.
    assert as_arguments(paths, None) == paths


def test_files_that_come_or_go_meanwhile_are_noticed(tmp_path):
    arguments = as_arguments(write_files(tmp_path, 2000), f"{tmp_path}/*.txt")
    (tmp_path / "new.txt").touch()
    with pytest.raises(InputError, match="come or gone since the run began; run again"):
        from_arguments(arguments)


@pytest.mark.slow
def test_a_corpus_of_twenty_thousand_files_is_read(tmp_path):
    clone = copy_repository(tmp_path / "clone")
    write_files(clone / "texts", 20_000)
    config = read_tiny()
    config["corpus"]["sources"] = [
        {"name": "texts", "files": "texts/*.txt", "documents": "file", "held_out": 0.01}
    ]
    config["influence"]["variants"] = {}
    config["report"]["study"] = []
    (clone / "many.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = ["--cores", "1", "--configfile", "many.json"]
    ran = run_snakemake(clone, "results/tiny/corpus/documents.jsonl", *arguments)
    assert ran.returncode == 0, ran.stdout
    read = read_json(clone / "results/tiny/corpus/documents.json")
    assert sum(read["documents"].values()) == 20_000
    # The plan is told of the same files.
    ran = run_snakemake(clone, "plan", *arguments)
    assert ran.returncode == 0, ran.stdout
    (clone / "texts/20000.txt").write_text("One more.\n", encoding="utf-8")
    again = run_snakemake(
        clone, "results/tiny/corpus/documents.jsonl", *arguments, "--dry-run"
    ).stdout
    assert "read_documents" in again

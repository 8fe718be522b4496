"""One SHA256SUMS a folder: many writers, kills, stale lines, damage, and permissions."""

import contextlib
import errno
import fcntl
import hashlib
import logging
import multiprocessing
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerFast, RobertaForSequenceClassification

from conftest import REPOSITORY, require_whole
from ifguide.data.corpus import TokenStream, train_tokenizer, write_blocks
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.classifiers import save_detoxify, save_sequence
from ifguide.files import checksums, locks
from ifguide.files.artifacts import (
    atomic_path,
    open_array,
    read_json,
    read_jsonl,
    write_array,
    write_json,
    write_jsonl,
    write_text,
)
from ifguide.files.checksums import (
    SUMS,
    RecordedTogether,
    file_sha256,
    read_checksums,
    record_directory,
    recorded_sha256,
    verified_sha256,
    verify,
    verify_directory,
    verify_own,
)
from ifguide.files.tables import read_table, write_table
from ifguide.files.tensor_files import read_tensors, write_tensors
from ifguide.files.tensor_metadata import read_metadata
from ifguide.influence.selection_files import write_mask
from ifguide.models.checkpoints import ListContents, last_whole_checkpoint
from ifguide.models.loading import load_model, save_model
from ifguide.report.figure_style import save_figure
from small_models import classifier_config, small_model

RESULTS = Path("results/tiny")
fork = multiprocessing.get_context("fork")


def sums(folder: Path) -> str:
    return (folder / SUMS).read_text(encoding="utf-8")


def test_a_line_a_file_sorted_as_coreutils_reads_it(tmp_path):
    for name in ("b.json", "a.csv", "é.txt", "B.json"):
        write_text(tmp_path / name, name)
    expected = "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n"
        for name in ("B.json", "a.csv", "b.json", "é.txt")
    )
    assert sums(tmp_path) == expected
    require_whole(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*read_checksums(tmp_path), SUMS}


def test_a_hidden_file_has_no_line(tmp_path):
    write_json(tmp_path / ".rows.json", {})
    assert [path.name for path in tmp_path.iterdir()] == [".rows.json"]


def test_a_file_for_a_users_own_folder_leaves_nothing_beside_it(tmp_path):
    write_json(tmp_path / "device.json", {}, publish=os.replace)
    assert [path.name for path in tmp_path.iterdir()] == ["device.json"]


# --- many writers ---------------------------------------------------------------------------------


def write_some(folder: Path, writer: int, count: int) -> None:
    for number in range(count):
        write_json(folder / f"{writer}-{number:02d}.json", [writer, number])
        write_json(folder / f"shared-{number % 3}.json", number % 3)


def test_processes_that_write_into_one_folder_lose_no_line(tmp_path):
    writers = [fork.Process(target=write_some, args=(tmp_path, one, 25)) for one in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(read_checksums(tmp_path)) == 8 * 25 + 3
    require_whole(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_writer_waits_for_the_one_before(tmp_path):
    lock = tmp_path / f".{SUMS}.lock"
    with locks.in_turn(lock):
        other = fork.Process(target=write_json, args=(tmp_path / "a.json", 1))
        other.start()
        time.sleep(0.3)
        assert not (tmp_path / "a.json").exists() and not (tmp_path / SUMS).exists()
    other.join(10)
    assert other.exitcode == 0
    require_whole(tmp_path)


def test_a_file_system_without_locks_is_told_of_once(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_warned", set())
    with caplog.at_level(logging.WARNING):
        write_json(tmp_path / "a.json", 1)
        write_json(tmp_path / "b.json", 2)
    assert [record.getMessage().count("no lock on this file system") for record in caplog.records]
    assert len(caplog.records) == 1
    require_whole(tmp_path)


def test_many_files_of_one_job_take_two_updates(tmp_path, monkeypatch):
    written = []
    write = checksums._write
    monkeypatch.setattr(checksums, "_write", lambda *args: (written.append(args), write(*args)))
    masks = [np.full((2, 3), number % 2, bool) for number in range(40)]
    first = write_mask(tmp_path, masks)
    assert len(written) == 1
    assert write_mask(tmp_path, masks) == first
    assert len(written) == 3  # once more, to drop the lines of the files that go
    require_whole(tmp_path)


def test_a_file_is_hashed_once_to_write_and_once_to_read(tmp_path, monkeypatch):
    hashed = []
    sha256_of = checksums.file_sha256
    monkeypatch.setattr(
        checksums, "file_sha256", lambda path: (hashed.append(Path(path)), sha256_of(path))[1]
    )
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {})
    assert len(hashed) == 1
    read_tensors(path)
    assert hashed[1:] == [path]


# --- stale lines ----------------------------------------------------------------------------------


def test_the_lines_of_files_that_are_gone_go_with_the_next_update(tmp_path):
    for name in ("a.json", "b.json", "c.json"):
        write_json(tmp_path / name, name)
    (tmp_path / "a.json").unlink()
    write_json(tmp_path / "b.json", "again")
    assert list(read_checksums(tmp_path)) == ["b.json", "c.json"]
    require_whole(tmp_path)


def test_a_listing_that_lags_behind_drops_no_line(tmp_path, monkeypatch):
    """As that of a network file system may, for what another machine has just written."""
    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "listdir", lambda _: [])
    write_json(tmp_path / "b.json", 2)
    monkeypatch.undo()
    require_whole(tmp_path)


def test_a_folder_is_recorded_as_it_is_now(results):
    for name in ("weights", "config"):
        (results / name).write_text(name, encoding="utf-8")
    (results / ".hidden").touch()
    (results / "inner").mkdir()
    record_directory(results)
    require_whole(results)
    (results / "weights").unlink()
    with pytest.raises(InputError, match=f"weights: missing; delete the folder {results}"):
        verify_directory(results)
    verify_directory(results, "c*")
    record_directory(results)
    verify_directory(results)
    assert list(read_checksums(results)) == ["config"]


# --- kills ----------------------------------------------------------------------------------------

STEPS = ("replace", "fsync", "unlink", "open")


def killed_before_step(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that dies before its step `number`; return whether it got there."""
    process = os.fork()
    if process == 0:
        left = number

        def counted(step: Callable) -> Callable:
            def call(*arguments, **options):
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return step(*arguments, **options)

            return call

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


def write_one(folder: Path) -> None:
    write_json(folder / "a.json", "new")


def write_many(folder: Path) -> None:
    paths = [folder / f"{name}.npy" for name in "ab"]
    with RecordedTogether(paths) as together:
        for path in paths:
            write_array(path, np.ones(3), together.publish)


def write_model(folder: Path) -> None:
    (folder / "weights").write_text("new", encoding="utf-8")
    record_directory(folder)


@pytest.mark.parametrize("before", ["nothing", "another version", "removed"])
@pytest.mark.parametrize("work", [write_one, write_many, write_model])
def test_killed_anywhere_the_same_job_leaves_a_whole_folder(tmp_path, work, before):
    """And until then no reader takes a file that is not what its line says."""
    number, killed = 0, True
    while killed:
        folder = tmp_path / str(number)
        folder.mkdir()
        write_json(folder / "of another job.json", 1)
        if before != "nothing":
            write_json(folder / "a.json", "old")
            write_array(folder / "a.npy", np.zeros(2))
            (folder / "weights").write_text("old", encoding="utf-8")
            record_directory(folder)
        if before == "removed":
            for name in ("a.json", "a.npy", "weights"):
                (folder / name).unlink()
        killed = killed_before_step(number, lambda folder=folder: work(folder))
        assert read_json(folder / "of another job.json") == 1
        for path in folder.glob("a.*"):
            with contextlib.suppress(InputError):  # refused, until the job has run again
                assert verified_sha256(path) == file_sha256(path)
        work(folder)
        verify_directory(folder)
        write_json(folder / "of another job.json", 2)
        require_whole(folder)
        number += 1
    assert number > 3


def test_a_line_whose_file_did_not_get_there_refuses_nothing(tmp_path, monkeypatch):
    def replace(*_):
        raise RuntimeError("killed")

    write_json(tmp_path / "b.json", 0)
    path = tmp_path / "a.json"
    with pytest.raises(RuntimeError), checksums._updated(tmp_path, {"a.json": "0" * 64}):
        replace()
    assert "a.json" in read_checksums(tmp_path)
    write_json(tmp_path / "b.json", 1)
    assert "a.json" not in read_checksums(tmp_path)
    write_json(path, 1)
    assert read_json(path) == 1


# --- damage ---------------------------------------------------------------------------------------


def kinds(folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Of each kind of file, by its name: what writes it, and what reads it."""
    values = np.arange(6, dtype=np.float32)
    paths = {
        name: folder / name
        for name in ("a.json", "a.jsonl", "a.csv", "a.npy", "a.safetensors", "a.txt")
    }
    return {
        "a.json": (lambda: write_json(paths["a.json"], [1]), lambda: read_json(paths["a.json"])),
        "a.jsonl": (
            lambda: write_jsonl(paths["a.jsonl"], [{"a": 1}]),
            lambda: read_jsonl(paths["a.jsonl"]),
        ),
        "a.csv": (
            lambda: write_table(paths["a.csv"], pd.DataFrame({"a": [1]})),
            lambda: read_table(paths["a.csv"]),
        ),
        "a.npy": (lambda: write_array(paths["a.npy"], values), lambda: open_array(paths["a.npy"])),
        "a.safetensors": (
            lambda: write_tensors(paths["a.safetensors"], {"a": torch.ones(2)}, {"b": "c"}),
            lambda: read_metadata(paths["a.safetensors"]),
        ),
        "a.txt": (lambda: write_text(paths["a.txt"], "a"), lambda: verify(paths["a.txt"])),
    }


@pytest.mark.parametrize("name", kinds(Path()))
def test_a_damaged_file_is_refused_with_its_name_and_the_cure(results, name):
    write, read = kinds(results)[name]
    write()
    read()
    content = (results / name).read_bytes()
    for damaged in (content[:-1], b"", content + b"\n", bytes([content[0] ^ 1]) + content[1:]):
        (results / name).write_bytes(damaged)
        with pytest.raises(InputError, match=f"{name}: .* delete it and run again") as refused:
            read()
        assert "\n" not in str(refused.value)
        # As the message says: it is deleted, and the job runs again.
        (results / name).unlink()
        write()
        read()
        assert (results / name).read_bytes() == content


@pytest.mark.parametrize("name", ["a.npy", "a.safetensors"])
def test_arrays_and_tensors_have_to_have_a_line(results, name):
    """Only stages write them, so nobody else's can be meant."""
    write, read = kinds(results)[name]
    write()
    (results / SUMS).unlink()
    with pytest.raises(InputError, match=f"{name}: .*{SUMS} has no line.* delete it and run again"):
        read()
    with pytest.raises(InputError, match="has no line"):
        recorded_sha256(results / name)
    write()
    read()
    assert verify_own(results / name) == file_sha256(results / name)


@pytest.mark.parametrize("name", kinds(Path()))
def test_a_file_that_a_user_has_is_not_to_be_deleted(tmp_path, monkeypatch, name):
    """Wherever it lies but below the results of this place, even in a folder of that name."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine/results"
    write, read = kinds(folder)[name]
    write()
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{name}: .*; the file is damaged or .*: mend it, or"):
        read()
    (folder / SUMS).write_text("no line", encoding="utf-8")
    with pytest.raises(InputError, match=f"{SUMS}: damaged .*; mend it, or give another"):
        read()


def test_one_place_alone_says_what_to_delete():
    """It knows whose file it is."""
    found = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "scripts").rglob("*.py")
        if re.search(r"[;:,] (delete|remove) [^\"]*again", path.read_text("utf-8"))
    }
    assert found == set()


def test_a_text_without_a_line_is_taken(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]", encoding="utf-8")
    assert read_json(path) == [1] and verify(path) is None
    assert verified_sha256(path) == file_sha256(path)


@pytest.mark.parametrize(
    "content", [b"abc\n", b"\n", b"0" * 64 + b" a.json\n", b"\xff" * 64 + b"  a.json\n"]
)
def test_damaged_checksums_are_refused_and_can_be_deleted(results, content):
    write_json(results / "a.json", 1)
    (results / SUMS).write_bytes(content)
    for use in (lambda: read_json(results / "a.json"), lambda: write_json(results / "b", 1)):
        with pytest.raises(InputError, match=f"{SUMS}: damaged .* delete it and run again"):
            use()
    (results / SUMS).unlink()
    read_json(results / "a.json")
    write_json(results / "a.json", 1)
    require_whole(results)


def test_checksums_of_files_read_as_binary_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("1", encoding="utf-8")
    (tmp_path / SUMS).write_text(f"{file_sha256(path)} *a.json\n", encoding="utf-8")
    assert verify(path) == file_sha256(path)


# --- permissions ----------------------------------------------------------------------------------


@contextlib.contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def wrong_permissions(folder: Path, mask: int) -> list[str]:
    """The files and folders below `folder` that allow anything else than the umask leaves."""
    return [
        f"{path.relative_to(folder)}: {stat.filemode(path.stat().st_mode)}"
        for path in folder.rglob("*")
        if stat.S_IMODE(path.stat().st_mode) != (0o777 if path.is_dir() else 0o666) & ~mask
    ]


def small_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["some words"], 300)


def small_classifier() -> RobertaForSequenceClassification:
    return RobertaForSequenceClassification(classifier_config(small_tokenizer()))


def save_checkpoint(folder: Path) -> None:
    class Arguments:
        output_dir = folder

    class State:
        is_world_process_zero, global_step = True, 1

    small_model("gpt2").save_pretrained(folder / "checkpoint-1")
    ListContents().on_save(Arguments, State, None)
    assert last_whole_checkpoint(folder)


def write_corpus(folder: Path) -> None:
    stream = TokenStream(0, np.arange(5), np.zeros(5, bool))
    sizes = {"block_size": 4, "shards": 2, "vocabulary_size": 9, "end_of_text": 0}
    write_json(folder / "meta.json", write_blocks([stream], folder, truth=True, **sizes))


def draw(folder: Path) -> None:
    save_figure(Figure(), [folder / "a.svg", folder / "a.png"])


WRITERS = {
    "json": lambda folder: write_json(folder / "a.json", 1),
    "table": lambda folder: write_table(folder / "a.csv", pd.DataFrame({"a": [1]})),
    "array": lambda folder: write_array(folder / "a.npy", np.ones(2)),
    "mask": lambda folder: write_mask(folder, [np.ones((2, 2), bool)]),
    "tensors": lambda folder: write_tensors(folder / "a.safetensors", {"a": torch.ones(2)}, {}),
    "corpus": write_corpus,
    "figure": draw,
    "model": lambda folder: save_model(small_model("gpt2"), small_tokenizer(), folder),
    "classifier": lambda folder: save_sequence(small_classifier(), small_tokenizer(), folder),
    "detoxify": lambda folder: save_detoxify(small_classifier(), small_tokenizer(), folder),
    "checkpoint": save_checkpoint,
}


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("kind", WRITERS)
def test_files_carry_the_permissions_of_the_umask(tmp_path, kind, mask):
    with umask(mask):
        WRITERS[kind](tmp_path / "written")
    assert wrong_permissions(tmp_path, mask) == []
    assert len(list(tmp_path.rglob(SUMS))) >= 1
    if kind != "checkpoint":
        require_whole(tmp_path / "written")


def test_what_the_folder_allows_beyond_the_umask_is_kept(tmp_path):
    with umask(0o077), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("a", encoding="utf-8")
        temporary.chmod(0o640)  # as its access list may have it
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_model_is_loaded_verified(results):
    weights = save_model(small_model("gpt2"), small_tokenizer(), results)
    assert weights == file_sha256(results / "model.safetensors")
    load_model(results)
    load_tokenizer(results)
    path = results / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: checksum .* delete it and run"):
        load_model(results)


# --- a finished run -------------------------------------------------------------------------------


def test_every_file_of_a_finished_run_has_its_line(finished):
    results = finished / RESULTS
    require_whole(results)
    assert not list(results.rglob(f".{SUMS}*")) and not list(results.rglob(".*.sha256"))


def test_a_finished_run_can_be_shared(finished):
    mask = os.umask(0o022)
    os.umask(mask)
    for folder in ("results", "logs"):
        assert wrong_permissions(finished / folder, mask) == []


def test_no_record_repeats_what_the_checksums_say(finished):
    """Records name what they were made from or speak of, as weights; never a file's own hash.

    The copy of Snakemake's own records, a hidden file, holds those of small inputs.
    """
    results = finished / RESULTS
    for folder in {path.parent for path in results.rglob(SUMS)}:
        records = {
            path.name: path.read_text(encoding="utf-8") for path in folder.glob("[!.]*.json")
        }
        for name, own in read_checksums(folder).items():
            if name != "model.safetensors":
                assert not [record for record, text in records.items() if own in text], name

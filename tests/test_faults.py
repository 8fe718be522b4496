"""Faults put in on purpose: kills, damaged files, a full disk, files from another run."""

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from conftest import (
    AWKWARD,
    TINY,
    DryRuns,
    content_of,
    copy_repository,
    copy_run,
    environment,
    error_line,
    job_commands,
    require_whole,
    rules_to_run,
    run_command,
    run_snakemake,
    snakemake_command,
)
from ifguide.files.artifacts import canonical_json, read_json, text_sha256, write_json
from ifguide.files.checksums import SUMS, file_sha256
from ifguide.files.tensor_files import read_tensors, write_tensors
from test_config import DOCUMENTS

RESULTS = Path("results/tiny")
PROXY = RESULTS / "influence/proxy"
SCORES = PROXY / "differential/scores/loss"
SELECTION = PROXY / "differential/top"
DIRECTION = PROXY / "differential/direction.safetensors"
MODELS = RESULTS / "models"
SUPPRESSED = MODELS / "target/ifguide/0"
PARTS = RESULTS / "corpus/bpe/parts"
EVALUATION = RESULTS / "evaluation/target/ifguide/0"
CONTINUATIONS = EVALUATION / "toxigen/continuations/shard-00000.jsonl"
JUDGED = EVALUATION / "toxigen/generations.jsonl"


@pytest.fixture(scope="module")
def clone(finished, tmp_path_factory) -> Path:
    """A finished run that the tests of this file damage, one file at a time, and mend."""
    return copy_run(finished, tmp_path_factory.mktemp("faults") / "clone")


@pytest.fixture(scope="module")
def commands(clone) -> list[list[str]]:
    """The command of every job, as the workflow gives it."""
    found = job_commands(clone, "--configfile", TINY, "--forceall")
    assert len(found) > 40
    return found


def written_by(command: list[str]) -> list[str]:
    """The arguments of a job, less the model that it begins with."""
    pairs = zip(command, command[1:], strict=False)
    return [argument for option, argument in pairs if option != "--start-from"]


def run_stage(clone: Path, commands: list[list[str]], script: str, written: str) -> str | None:
    """Run the job of `script` that writes `written`; return the line of its error, if any."""
    (command,) = [
        command
        for command in commands
        if Path(command[0]).name == script and written in written_by(command)
    ]
    return run_command(clone, command)


@contextlib.contextmanager
def changed(path: Path):
    """Give a file, and its recorded checksum, back their content after whatever is done to them."""
    files = [path, path.with_name(SUMS)]
    contents = {file: file.read_bytes() for file in files if file.exists()}
    try:
        yield contents[path]
    finally:
        for file, content in contents.items():
            file.write_bytes(content)


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "bit-flip-in-header": lambda content: flip(content, 12),
    "bit-flip-at-end": lambda content: flip(content, len(content) - 1),
}
# What is damaged; the rule that makes it; and a job that reads it: its script, and the output that
# tells it from others.
READERS = {
    "corpus/bpe/tokens/shard-00001.npy": (
        "tokenize_documents",
        "score_tokens.py",
        SCORES / "shard-00001.npy",
    ),
    "corpus/bpe/parts/shard-00001.npy": (
        "tokenize_part",
        "tokenize_documents.py",
        RESULTS / "corpus/bpe",
    ),
    "influence/proxy/eigenbases.safetensors": (
        "decompose_covariances",
        "merge_factors.py",
        PROXY / "factors.safetensors",
    ),
    "influence/proxy/factors.safetensors": ("merge_factors", "make_direction.py", DIRECTION),
    "influence/proxy/differential/direction.safetensors": (
        "make_direction",
        "score_tokens.py",
        SCORES / "shard-00000.npy",
    ),
    "influence/proxy/differential/scores/loss/shard-00001.npy": (
        "score_tokens",
        "select_tokens.py",
        SELECTION,
    ),
    "influence/proxy/differential/top/mask/shard-00000.npy": (
        "select_tokens",
        "make_model.py",
        SUPPRESSED,
    ),
    "models/proxy/none/0/model.safetensors": (
        "make_model",
        "score_tokens.py",
        SCORES / "shard-00000.npy",
    ),
    "models/target/ifguide/0/model.safetensors": (
        "make_model",
        "generate_continuations.py",
        CONTINUATIONS,
    ),
}
# What is beside these, and what other stages leave for one another.
OTHER_READERS = {
    "corpus/documents.jsonl": ("read_documents", "tokenize_part.py", PARTS / "shard-00000.npy"),
    "corpus/held_out.jsonl": (
        "read_documents",
        "tokenize_documents.py",
        RESULTS / "corpus/bpe/held_out",
    ),
    "corpus/bpe/tokenizer/tokenizer.json": (
        "make_tokenizer",
        "tokenize_part.py",
        PARTS / "shard-00000.npy",
    ),
    "corpus/bpe/meta.json": ("tokenize_documents", "score_tokens.py", SCORES / "shard-00001.npy"),
    "queries/toxic.jsonl": (
        "read_queries",
        "measure_query_gradient.py",
        PROXY / "gradients/toxic.safetensors",
    ),
    "influence/proxy/differential/scores/loss/shard-00001.json": (
        "score_tokens",
        "select_tokens.py",
        SELECTION,
    ),
    "influence/proxy/differential/top/documents.csv": (
        "select_tokens",
        "describe_documents.py",
        SELECTION / "described.jsonl",
    ),
    "influence/proxy/differential/top/selection.json": (
        "select_tokens",
        "make_model.py",
        SUPPRESSED,
    ),
    "models/target/ifguide/0/config.json": (
        "make_model",
        "generate_continuations.py",
        CONTINUATIONS,
    ),
    "models/target/ifguide/0/tokenizer.json": (
        "make_model",
        "generate_continuations.py",
        CONTINUATIONS,
    ),
    "pairs/dpo.jsonl": ("read_pairs", "make_model.py", MODELS / "target/dpo/0"),
    "prompts/toxigen.jsonl": ("read_prompts", "generate_continuations.py", CONTINUATIONS),
    "rewards/toxicity/bpe/model.safetensors": (
        "train_reward",
        "generate_continuations.py",
        RESULTS / "evaluation/target/rad/0/toxigen/continuations/shard-00000.jsonl",
    ),
    "classifiers/explicit/model.ckpt": ("train_classifier", "classify_continuations.py", JUDGED),
    "classifiers/implicit/model.safetensors": (
        "train_classifier",
        "classify_continuations.py",
        JUDGED,
    ),
    "classifiers/implicit/tokenizer.json": (
        "train_classifier",
        "classify_continuations.py",
        JUDGED,
    ),
    "passages/lambada.jsonl": (
        "read_passages",
        "measure_fluency.py",
        EVALUATION / "lambada/metrics.json",
    ),
    "evaluation/target/ifguide/0/toxigen/continuations/shard-00000.jsonl": (
        "generate_continuations",
        "classify_continuations.py",
        JUDGED,
    ),
    "evaluation/target/ifguide/0/toxigen/generations.jsonl": (
        "classify_continuations",
        "measure_toxicity.py",
        EVALUATION / "toxigen/metrics.json",
    ),
    "evaluation/target/ifguide/0/toxigen/continuation_losses.json": (
        "measure_fluency",
        "measure_toxicity.py",
        EVALUATION / "toxigen/metrics.json",
    ),
    "evaluation/target/ifguide/0/toxigen/metrics.json": (
        "measure_toxicity",
        "summarize.py",
        RESULTS / "summary.csv",
    ),
    "summary.csv": ("summarize", "draw_figures.py", RESULTS / "figures"),
}
ALL_READERS = READERS | OTHER_READERS
# By which file a run asks for what a script writes into a folder.
LAST_OF_FOLDER = {
    "tokenize_documents.py": "meta.json",
    "select_tokens.py": "selection.json",
    "make_model.py": "training.json",
    "draw_figures.py": "toxicity_by_method.png",
}


@pytest.mark.parametrize(
    ("artifact", "damage"),
    [*product(READERS, DAMAGES), *product(OTHER_READERS, ("empty", "bit-flip-at-end"))],
)
def test_a_damaged_artifact_is_refused_by_its_reader(clone, commands, artifact, damage):
    _, script, written = ALL_READERS[artifact]
    path = clone / RESULTS / artifact
    with changed(path) as content:
        path.write_bytes(DAMAGES[damage](content))
        message = run_stage(clone, commands, script, str(written))
    assert message and str(RESULTS / artifact) in message
    assert re.search(r"delete .* and run again", message)


@pytest.fixture(scope="module")
def dry_runs_of_clone(clone, tmp_path_factory) -> Iterator[DryRuns]:
    runs = DryRuns(clone, tmp_path_factory.mktemp("overlays"))
    yield runs
    runs.close()


@contextlib.contextmanager
def moved_away(paths: list[Path], folder: Path):
    """Have files and folders gone for a while."""
    kept = [path.rename(folder / f"{number}") for number, path in enumerate(paths)]
    try:
        yield
    finally:
        for path, moved in reversed(list(zip(paths, kept, strict=True))):
            moved.rename(path)


@pytest.mark.parametrize("artifact", ALL_READERS)
def test_what_a_refusal_says_to_delete_is_made_again(
    clone, commands, dry_runs_of_clone, tmp_path, artifact
):
    maker, script, written = ALL_READERS[artifact]
    path = clone / RESULTS / artifact
    with changed(path) as content:
        path.write_bytes(content[: len(content) // 2])
        message = run_stage(clone, commands, script, str(written))
    folder = re.search(r"delete the folder (\S+) and run again", message)
    target = written if written.suffix else written / LAST_OF_FOLDER[script]
    with moved_away([clone / target, clone / folder[1] if folder else path], tmp_path):
        assert maker in dry_runs_of_clone.rules(TINY, target=target)


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("make_tokenizer.py", RESULTS / "corpus/bpe/tokenizer"),
        ("train_classifier.py", RESULTS / "classifiers/explicit"),
        ("train_classifier.py", RESULTS / "classifiers/implicit"),
        ("train_reward.py", RESULTS / "rewards/toxicity/bpe"),
        ("make_model.py", MODELS / "target/none/0"),
    ],
)
def test_a_folder_whose_outputs_the_workflow_removed_is_written_again(
    commands, finished, tmp_path, script, written
):
    """It removes those of a failed job, but not their checksums, of which it does not know."""
    clone = copy_run(finished, tmp_path / "clone")
    for path in (clone / written).iterdir():
        if path.name not in (SUMS, "README.md"):  # the card of a model is another job's
            path.unlink()
    assert run_stage(clone, commands, script, str(written)) is None
    assert content_of(clone, written) == content_of(finished, written)
    require_whole(clone / written)


def test_the_readers_read_undamaged_files(clone, commands):
    """Otherwise the refusals above could have another reason."""
    for script, written in [
        ("select_tokens.py", SELECTION),
        ("make_direction.py", DIRECTION),
    ]:
        before = file_sha256(clone / SELECTION / "selection.json")
        assert run_stage(clone, commands, script, str(written)) is None
        assert file_sha256(clone / SELECTION / "selection.json") == before


@pytest.mark.parametrize("what", ["tokens", "weights", "direction", "settings"])
def test_a_score_shard_of_another_origin_is_refused_with_both_hashes(clone, commands, what):
    path = clone / SCORES / "shard-00001.json"
    with changed(path):
        record = read_json(path)
        if what == "settings":
            own = hashlib.sha256(canonical_json(record["settings"]).encode()).hexdigest()
            record["settings"]["scores"]["relative_step"] = 0.5
            other = hashlib.sha256(canonical_json(record["settings"]).encode()).hexdigest()
        else:
            own, other = record[f"{what}_sha256"], hashlib.sha256(b"other").hexdigest()
            record[f"{what}_sha256"] = other
        write_json(path, record)
        message = run_stage(clone, commands, "select_tokens.py", str(SELECTION))
    assert f"{SCORES}/shard-00001.npy: made from {what}" in message
    assert own[:12] in message and other[:12] in message


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        (RESULTS / "influence/target/plain/scores/loss", "weights"),
        (PROXY / "differential/scores/position", "settings"),
    ],
)
@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("select_tokens.py", SELECTION),
        ("measure_attribution.py", SCORES / "attribution.json"),
        ("describe_documents.py", SELECTION / "described.jsonl"),
        ("average_scores.py", PROXY / "mean/scores/loss/shard-00000.npy"),
    ],
)
def test_scores_that_all_are_of_another_origin_are_refused_with_both_hashes(
    clone, commands, origin, what, script, written
):
    """They agree with one another, so only what they should be made from tells."""
    with contextlib.ExitStack() as stack:
        for path in sorted((clone / SCORES).glob("shard-*")):
            stack.enter_context(changed(path))
        for path in (clone / origin).glob("*shard-*"):
            shutil.copy(path, clone / SCORES)
        shutil.copy(clone / origin / SUMS, clone / SCORES)
        found = read_json(clone / SCORES / "shard-00000.json")
        message = run_stage(clone, commands, script, str(written))
    own = read_json(clone / SCORES / "shard-00000.json")
    if what == "settings":
        hashes = [text_sha256(canonical_json(record["settings"])) for record in (found, own)]
    else:
        hashes = [record[f"{what}_sha256"] for record in (found, own)]
    assert f"{SCORES}/shard-00000.npy: made from {what}" in message
    assert all(sha[:12] in message for sha in hashes)


def test_factors_of_another_model_are_refused_with_both_hashes(clone, commands):
    path = clone / PROXY / "factors.safetensors"
    with changed(path):
        tensors, metadata = read_tensors(path)
        own, other = metadata["weights_sha256"], hashlib.sha256(b"other").hexdigest()
        write_tensors(path, tensors, {**metadata, "weights_sha256": other})
        message = run_stage(clone, commands, "make_direction.py", str(DIRECTION))
    assert str(PROXY / "factors.safetensors") in message
    assert own[:12] in message and other[:12] in message


def test_a_changed_corpus_reruns_exactly_what_depends_on_it(clone):
    path = clone / RESULTS / "planted/documents.jsonl"
    with changed(path) as content:
        path.write_bytes(content.replace(b"the", b"one", 1))
        ran = run_snakemake(clone, "--configfile", TINY, "--cores", "1", "--dry-run")
    assert rules_to_run(ran.stdout) == DOCUMENTS
    ran = run_snakemake(clone, "--configfile", TINY, "--cores", "1", "--dry-run")
    assert rules_to_run(ran.stdout) == set()


@contextlib.contextmanager
def small_disk(folder: Path, kib: int):
    """Mount a file system of `kib` KiB at `folder`. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "folder, kib, script, written",
    [
        (SCORES, 16, "score_tokens.py", SCORES / "shard-00000.npy"),
        (PROXY / "differential", 4, "make_direction.py", DIRECTION),
        (MODELS / "target/none", 16, "make_model.py", MODELS / "target/none/0"),
        (RESULTS / "corpus", 16, "read_documents.py", RESULTS / "corpus/documents.jsonl"),
        (
            RESULTS / "classifiers/explicit",
            64,
            "train_classifier.py",
            RESULTS / "classifiers/explicit",
        ),
    ],
    ids=["numpy", "safetensors", "model", "jsonl", "torch"],
)
def test_a_full_disk(clone, commands, finished, folder, kib, script, written):
    """One clear error, nothing half-written left; the same job completes once there is room."""
    files = [
        finished / written,
        *(finished / written / name for name in ("losses.csv", "model.ckpt")),
    ]
    needed = next(path for path in files if path.is_file())
    with small_disk(clone / folder, kib):
        message = run_stage(clone, commands, script, str(written))
        assert message and "no space left on the device" in message
        assert not (clone / needed.relative_to(finished)).exists()
        assert not list((clone / folder).rglob("*.partial*"))
        remount = ["mount", "-o", "remount,size=64m", str(clone / folder)]
        subprocess.run(remount, check=True)
        assert run_stage(clone, commands, script, str(written)) is None
        assert file_sha256(clone / needed.relative_to(finished)) == file_sha256(needed)


# --- kill -9 --------------------------------------------------------------------------------------

KILLS = 20
# Seconds from the first job's start to the kill, at most: so the kills fall all over the run.
LATEST = 20


@pytest.mark.slow
def test_killed_at_random_moments_the_same_command_completes_with_the_same_bits(finished, tmp_path):
    """A whole run, its folder and code in awkward places. The moments differ each time."""
    folder = tmp_path / AWKWARD
    repository = copy_repository(folder / "repository")
    run = ["--snakefile", repository / "workflow/Snakefile", "--configfile", repository / TINY]
    command = snakemake_command(*run, "--cores", "2")
    log = tmp_path / "killed.log"
    moments = []
    while len(moments) < KILLS:
        with open(log, "w") as output:
            running = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # From the first line of the first job on, not while Python still starts.
        while running.poll() is None and "Execute" not in log.read_text(encoding="utf-8"):
            time.sleep(0.05)
        moment = random.SystemRandom().uniform(0, LATEST)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=moment)
        if running.poll() is not None:
            assert running.returncode == 0, log.read_text(encoding="utf-8")
            shutil.rmtree(folder / RESULTS)
            continue
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        moments.append(round(moment, 2))
    print(f"killed these seconds after the first job began: {moments}")
    again = run_snakemake(folder, *run, "--cores", "2", timeout=1800)
    assert again.returncode == 0, again.stdout
    found, wanted = content_of(folder, RESULTS), content_of(finished, RESULTS)
    assert found.keys() == wanted.keys()
    assert {name for name in found if found[name] != wanted[name]} == set()
    require_whole(folder / RESULTS)
    left = run_snakemake(folder, *run, "--cores", "1", "--dry-run")
    assert rules_to_run(left.stdout) == set()
    assert not list(tmp_path.rglob("it-ran"))


def test_two_live_runs_in_one_folder_are_refused(clone, tmp_path):
    from ifguide.errors import InputError
    from ifguide.files.locks import hold_run_lock

    path = clone / RESULTS / ".run.lock"
    descriptor = hold_run_lock(path)
    try:
        arguments = ["--configfile", TINY, "--cores", "1", "--forcerun", "check_disjoint"]
        refused = run_snakemake(clone, RESULTS / "queries/disjoint.json", *arguments)
        assert refused.returncode == 1
        assert f"process {os.getpid()} on " in error_line(refused.stdout)
        dry = run_snakemake(clone, RESULTS / "queries/disjoint.json", *arguments, "--dry-run")
        assert dry.returncode == 0, dry.stdout
        with pytest.raises(InputError, match="another run"):
            hold_run_lock(path)
    finally:
        os.close(descriptor)
    allowed = run_snakemake(clone, RESULTS / "queries/disjoint.json", *arguments)
    assert allowed.returncode == 0, allowed.stdout


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("score_tokens.py", SCORES / "shard-00000.npy"),
        ("make_model.py", SUPPRESSED),
        ("make_model.py", MODELS / "target/dpo/0"),
        ("generate_continuations.py", CONTINUATIONS),
    ],
)
def test_a_job_that_outlives_its_run_is_not_joined_by_another(clone, commands, script, written):
    """Only the process that resumes from unfinished files may write them."""
    from ifguide.files.locks import sole_writer

    with sole_writer(clone / written):
        message = run_stage(clone, commands, script, str(written))
        assert f"{written}: another process is making this (process {os.getpid()} on" in message
    assert not list((clone / written.parent).glob(".*.lock"))
    with sole_writer(clone / written):
        pass

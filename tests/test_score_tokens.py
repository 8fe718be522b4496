"""The scoring job: interrupted, on half-precision weights, with inputs that do not fit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import environment, error_line
from ifguide.data.corpus import TokenStream, write_blocks
from ifguide.files.artifacts import read_json, write_json
from ifguide.files.checksums import SUMS
from ifguide.files.partial_array import PartialArray
from ifguide.files.tensor_files import read_tensors, tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import TENSORS
from ifguide.influence.token_scores import forward_mode_scorer, relative_error
from ifguide.models.loading import weights_sha256
from ifguide.models.tracked_layers import tracked_layers
from small_models import VOCABULARY, random_direction, small_model

SETTINGS = {
    "attribution": "loss",
    "scores": {
        "route": "two_forward",
        "precision": "float32",
        "relative_step": 1e-3,
        "tolerance": 0.05,
        "check_blocks": 2,
        "batch_size": 12,  # does not divide a group of blocks
        "logits_budget_mib": 1,
        "blocks": None,
    },
    "seed": 1,
}
BLOCKS, LENGTH = 1500, 32


def write_corpus(folder: Path, tokens: int) -> None:
    random = np.random.default_rng(0)
    ids = random.integers(1, VOCABULARY, tokens)
    meta = write_blocks(
        [TokenStream(0, ids, None)],
        folder,
        block_size=LENGTH,
        shards=1,
        vocabulary_size=VOCABULARY,
        end_of_text=0,
        truth=False,
    )
    write_json(folder / "meta.json", meta)


def write_model(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    model = small_model("gpt_neox", dtype)
    model.save_pretrained(folder)
    layers, _ = tracked_layers(model)
    direction = {name: tensor.float() for name, tensor in random_direction(layers).items()}
    write_tensors(
        folder.with_name("direction.safetensors"),
        direction,
        {"weights_sha256": weights_sha256(folder), TENSORS: tensors_sha256(direction)},
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_corpus(folder / "corpus", BLOCKS * LENGTH - 5)
    write_model(folder / "model")
    return folder


def command(repository: Path, inputs: Path, output: Path, **changes) -> list[str]:
    settings = {**SETTINGS, "scores": SETTINGS["scores"] | changes}
    return [
        sys.executable,
        str(repository / "scripts/score_tokens.py"),
        *("--settings", json.dumps(settings)),
        *("--model", str(inputs / "model"), "--corpus", str(inputs / "corpus")),
        *("--direction", str(inputs / "direction.safetensors")),
        *("--shard", "0", "--output", str(output)),
    ]


def run_job(*arguments, **changes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, **changes),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def score(*arguments, **changes) -> str:
    """Run the job to its end and return what it logged."""
    ran = run_job(*arguments, **changes)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def refusal(*arguments, **changes) -> str:
    """Run the job, which has to refuse, and return its one line."""
    ran = run_job(*arguments, **changes)
    assert ran.returncode == 1
    return error_line(ran.stdout)


@pytest.fixture(scope="module")
def uninterrupted(repository, inputs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "shard-00000.npy"
    assert "going on" not in score(repository, inputs, output)
    return output


@pytest.fixture(scope="module")
def killed(repository, inputs, tmp_path_factory) -> Path:
    """The folder of a job that was killed after its first finished blocks."""
    output = tmp_path_factory.mktemp("killed") / "shard-00000.npy"
    record = output.with_name(".shard-00000.rows.json")
    running = subprocess.Popen(
        command(repository, inputs, output), env=environment(), stderr=subprocess.DEVNULL
    )
    while not record.exists():
        assert running.poll() is None, "the job ended before it was killed"
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not output.exists()
    assert 0 < read_json(record)["saved"][-1][0] < BLOCKS
    return output.parent


def test_a_step_too_long_is_refused_with_its_error_and_what_to_change(repository, inputs, tmp_path):
    output = tmp_path / "shard-00000.npy"
    message = refusal(repository, inputs, output, relative_step=1.0)
    assert "config key influence.scores: by route two_forward in float32 the scores are" in message
    assert "(tolerance 0.05); try a relative_step ten times larger or smaller than 1" in message
    assert "influence.scores.route: forward_mode" in message
    assert not output.exists()


def test_a_difference_of_bfloat16_losses_is_refused(repository, inputs, tmp_path):
    output = tmp_path / "shard-00000.npy"
    message = refusal(repository, inputs, output, precision="bfloat16")
    assert "by route two_forward in bfloat16" in message
    assert message.endswith("or influence.scores.precision: float32")
    assert not output.exists()


@pytest.mark.parametrize("route", ["forward_mode", "backward"])
def test_the_error_of_bfloat16_products_is_measured(repository, tmp_path, route):
    """Half of the bits make an error of some thousandths, and no other scores."""
    write_corpus(tmp_path / "corpus", 3 * LENGTH)
    write_model(tmp_path / "model")
    found = {}
    for precision in ("float32", "bfloat16"):
        output = tmp_path / precision / "shard-00000.npy"
        score(repository, tmp_path, output, route=route, precision=precision, check_blocks=3)
        found[precision] = torch.from_numpy(np.load(output))
    error = relative_error(found["bfloat16"], found["float32"])
    assert 1e-4 < error < 0.03
    record = read_json(tmp_path / "bfloat16/shard-00000.json")
    # All blocks of this shard were checked.
    assert record["relative_error"] == pytest.approx(error, rel=1e-3)


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target / "shard-00000.npy"


def test_a_killed_job_goes_on_and_gives_the_same_bytes(
    repository, inputs, killed, uninterrupted, tmp_path
):
    output = copied(killed, tmp_path / "again")
    record_path = output.with_name(".shard-00000.rows.json")
    record = read_json(record_path)
    begin, finished = 0, record["saved"][-1][0]
    if len(record["saved"]) > 1:
        begin = record["saved"][-2][0]
    # Rows that are finished are not computed again: a mark in them stays.
    rows = np.load(output.with_name(".shard-00000.rows.npy"), mmap_mode="r+")
    rows[finished - 1, 1] += 1
    rows.flush()
    record["saved"][-1][1] = hashlib.sha256(rows[begin:finished]).hexdigest()
    write_json(record_path, record)
    assert f"going on at block {finished} of {BLOCKS}" in score(repository, inputs, output)
    found, expected = np.load(output), np.load(uninterrupted)
    assert found[finished - 1, 1] != expected[finished - 1, 1]
    found[finished - 1, 1] = expected[finished - 1, 1]
    assert found.tobytes() == expected.tobytes()
    assert sorted(path.name for path in output.parent.iterdir()) == [
        SUMS,
        "shard-00000.json",
        "shard-00000.npy",
    ]


def test_rows_of_other_settings_are_thrown_away(
    repository, inputs, killed, uninterrupted, tmp_path
):
    output = copied(killed, tmp_path / "again")
    # Another record of settings, the same scores.
    assert "going on" not in score(repository, inputs, output, logits_budget_mib=2)
    assert output.read_bytes() == uninterrupted.read_bytes()


@pytest.mark.parametrize("damage", ["nothing", "source", "shape", "record", "rows"])
def test_rows_are_kept_only_with_a_whole_record_of_the_same_source(tmp_path, damage):
    output = tmp_path / "shard.npy"
    first = PartialArray(output, (4, 3), {"weights": "a"})
    first.values[:2] = 7
    first.save(2)
    if damage == "record":
        first.record_path.write_text("{", encoding="utf-8")
    elif damage == "rows":
        first.rows_path.unlink()
    again = PartialArray(
        output,
        (5, 3) if damage == "shape" else (4, 3),
        {"weights": "b" if damage == "source" else "a"},
    )
    kept = damage == "nothing"
    assert again.finished == (2 if kept else 0)
    assert (again.values[:2] == (7 if kept else 0)).all()


def test_damaged_rows_are_made_again_with_what_follows_them(tmp_path):
    output = tmp_path / "shard.npy"
    first = PartialArray(output, (6, 3), {"weights": "a"})
    for stop in (2, 4, 5):
        first.values[stop - 1] = stop
        first.save(stop)
    damaged = np.load(first.rows_path, mmap_mode="r+")
    damaged[3, 0] = 9
    damaged.flush()
    assert PartialArray(output, (6, 3), {"weights": "a"}).finished == 2


@pytest.mark.parametrize(
    ("route", "dtype", "tolerance"),
    [
        ("two_forward", torch.bfloat16, 5e-3),
        ("forward_mode", torch.float16, 1e-5),
        ("backward", torch.float32, 1e-5),
    ],
)
def test_every_route_scores_in_float32_whatever_the_weights(
    repository, tmp_path, route, dtype, tolerance
):
    """A difference of two bfloat16 losses would be noise."""
    write_corpus(tmp_path / "corpus", 4 * LENGTH)
    write_model(tmp_path / "model", dtype)
    output = tmp_path / "scores/shard-00000.npy"
    score(repository, tmp_path, output, route=route)
    exact = small_model("gpt_neox")
    halves = small_model("gpt_neox", dtype).state_dict()
    exact.load_state_dict({name: tensor.double() for name, tensor in halves.items()})
    direction, _ = read_tensors(tmp_path / "direction.safetensors")
    direction = {name: tensor.double() for name, tensor in direction.items()}
    tokens = torch.from_numpy(np.load(tmp_path / "corpus/tokens/shard-00000.npy").astype(np.int64))
    expected = forward_mode_scorer(exact, direction, logits_budget_bytes=2**20)(tokens)
    assert relative_error(torch.from_numpy(np.load(output)), expected) < tolerance
    measured = read_json(output.with_suffix(".json"))["relative_error"]
    assert (measured is None) == (route != "two_forward")
    assert not measured or measured < tolerance


@pytest.mark.parametrize("what", ["weights", "tokens"])
def test_a_direction_of_other_weights_or_tokens_is_refused(repository, inputs, tmp_path, what):
    for name in ("model", "corpus"):
        (tmp_path / name).symlink_to(inputs / name)
    direction, metadata = read_tensors(inputs / "direction.safetensors")
    name = {"weights": "weights_sha256", "tokens": "factor_tokens_sha256"}[what]
    write_tensors(tmp_path / "direction.safetensors", direction, metadata | {name: "f" * 64})
    expected = {
        "weights": weights_sha256(inputs / "model"),
        "tokens": read_json(inputs / "corpus/meta.json")["content_sha256"],
    }[what]
    message = refusal(repository, tmp_path, tmp_path / "shard-00000.npy")
    assert what in message and "f" * 12 in message and expected[:12] in message

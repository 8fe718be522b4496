"""Training with suppressed tokens: the same result however it is divided, interrupted, resumed."""

import json
import multiprocessing
import os
import signal
import socket
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, TrainerState

import make_model
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, write_json
from ifguide.files.checksums import file_sha256
from ifguide.models.checkpoints import CONTENTS, ListContents, last_whole_checkpoint
from ifguide.models.labels import IGNORED_LABEL, unmark_labels
from ifguide.models.objective import suppression_loss
from ifguide.models.training import training_arguments
from ifguide.models.training_blocks import BlockOrder, Blocks, OrderOfEpoch, divide_step
from ifguide.models.training_progress import StopAtBadLoss
from ifguide.workflow.config.models import Training
from small_training import (
    TRAINING,
    WITH_DROPOUT,
    random_mask,
    small_corpus,
    training_command,
    weights_of,
    write_mask,
)

# Processes of their own, forked from one that has the libraries and trained nothing.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["transformers.trainer"])

LOSSES = ["loss", "selected_loss", "unselected_loss"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def mask(corpus, tmp_path_factory):
    return random_mask(tmp_path_factory.mktemp("mask"), corpus)


def run_here(command: list[str]) -> None:
    """Run a training command in this process."""
    options = iter(command[command.index("--settings") :])
    named = {"given": {}, "start_from": None}
    kinds = {"settings": json.loads, "given": json.loads, "checkpoint_steps": int}
    for option, value in zip(options, options, strict=True):
        name = option.removeprefix("--").replace("-", "_")
        named[name] = kinds.get(name, Path)(value)
    make_model.main(Namespace(**named))


def train_here(corpus, output, **settings) -> pd.DataFrame:
    run_here(training_command(corpus, output, **settings))
    return pd.read_csv(output / "losses.csv")


@pytest.fixture(scope="module")
def alone(corpus, mask, tmp_path_factory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("alone") / "0"
    return train_here(corpus, output, mask=mask, batch_size=4, accumulation=4)


# --- however it is divided ------------------------------------------------------------------------


def test_a_step_is_divided_into_the_same_blocks():
    assert divide_step(16, 1, 1) == (16, 1)
    assert divide_step(8, 4, 2) == (8, 2)
    assert divide_step(8, 1, 4) == (2, 1)
    assert divide_step(8, 3, 2) == (6, 2)
    with pytest.raises(InputError, match="8 × 1 blocks cannot be divided among 3 processes"):
        divide_step(8, 1, 3)


def test_the_order_of_blocks_fills_the_last_step_with_empty_ones():
    order = BlockOrder(10, 4, seed=3)
    first = list(order)
    assert len(order) == len(first) == 12
    assert sorted(first[:10]) == list(range(10)) and first[10:] == [10, 10]
    order.set_epoch(1)
    assert list(order) != first
    order.set_epoch(0)
    assert list(order) == first


@pytest.mark.parametrize("epoch, expected", [(None, 0), (0.75, 0), (1.0, 1), (2.25, 2)])
def test_the_order_is_that_of_the_epoch_in_which_a_training_resumes(epoch, expected):
    order = BlockOrder(10, 4, seed=3)
    OrderOfEpoch(order).on_epoch_begin(None, TrainerState(epoch=epoch), None)
    assert order.epoch == expected


def test_blocks_have_no_first_label_no_padding_and_an_empty_one_after_the_last(corpus, mask):
    blocks = Blocks(corpus, None)
    labels = torch.stack([blocks[index]["labels"] for index in range(len(blocks))])
    assert (labels[:, 0] == IGNORED_LABEL).all()
    assert (labels != IGNORED_LABEL).sum() == corpus.meta["tokens"] - len(blocks)
    empty = blocks[len(blocks)]
    labels, selected = unmark_labels(empty["labels"][None])
    assert (labels == IGNORED_LABEL).all() and not selected.any()
    logits = torch.randn(1, corpus.block_size, 9, requires_grad=True)
    total, _ = suppression_loss(logits, labels, selected, objective="published", strength=1)
    total.backward()
    assert total == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("batch_size, accumulation", [(16, 1), (2, 8)])
def test_accumulation_changes_no_loss(corpus, mask, alone, tmp_path, batch_size, accumulation):
    losses = train_here(
        corpus, tmp_path / "0", mask=mask, batch_size=batch_size, accumulation=accumulation
    )
    np.testing.assert_allclose(losses[LOSSES], alone[LOSSES], rtol=1e-5)


@pytest.mark.parametrize("resumed", [False, True])
def test_two_processes_reach_the_losses_of_one(corpus, mask, alone, tmp_path, resumed):
    output = tmp_path / "0"
    command = training_command(corpus, output, mask=mask, batch_size=4, accumulation=4)
    if resumed:
        # One process is killed in the second epoch; two go on.
        killed = SERVER.Process(target=train_until_killed, args=(command, 10, False))
        killed.start()
        killed.join(timeout=600)
        assert (tmp_path / ".0.checkpoints/checkpoint-9" / CONTENTS).exists()
    run_together(command, processes=2)
    losses = pd.read_csv(output / "losses.csv")
    np.testing.assert_allclose(losses[LOSSES], alone[LOSSES], rtol=1e-5)
    assert read_json(output / "training.json")["processes"] == 2
    AutoModelForCausalLM.from_pretrained(output, local_files_only=True)


def test_a_model_is_sharded_among_several_devices_only(tmp_path):
    settings = TRAINING | {"fsdp": True, "gradient_checkpointing": True}
    common = {"checkpoints": tmp_path, "seed": 0}
    sharded = training_arguments(settings, use_cpu=False, processes=2, **common)
    assert sharded.fsdp_plugin_args["fsdp_version"] == 2
    # Recomputing inside the shards gathers them once; the model's own way would do it twice.
    assert sharded.fsdp_plugin_args["activation_checkpointing"]
    assert not sharded.activation_checkpointing
    whole = training_arguments(settings, use_cpu=False, processes=1, **common)
    assert whole.fsdp_plugin_args is None and whole.activation_checkpointing


def run_together(command: list[str], processes: int) -> None:
    """Run a training command in several processes, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        SERVER.Process(target=run_as_rank, args=(command, rank, processes, port))
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=600)
    assert [process.exitcode for process in running] == [0] * processes


def run_as_rank(command: list[str], rank: int, processes: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_here(command)


def test_recomputed_activations_change_no_loss(corpus, mask, alone, tmp_path):
    losses = train_here(
        corpus,
        tmp_path / "0",
        mask=mask,
        batch_size=4,
        accumulation=4,
        gradient_checkpointing=True,
    )
    np.testing.assert_allclose(losses[LOSSES], alone[LOSSES], rtol=1e-6)


@pytest.mark.parametrize(("vectors", "warns"), [("AVX2", True), ("AVX512", False)])
def test_a_slow_precision_is_warned_of(corpus, tmp_path, monkeypatch, caplog, vectors, warns):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    train_here(corpus, tmp_path / "0", batch_size=4, max_steps=1, precision="bfloat16")
    assert ("training.precision" in caplog.text) == warns


def test_bfloat16_products_keep_float32_weights_and_similar_losses(corpus, mask, alone, tmp_path):
    output = tmp_path / "0"
    losses = train_here(
        corpus, output, mask=mask, batch_size=4, accumulation=4, precision="bfloat16"
    )
    np.testing.assert_allclose(losses[LOSSES], alone[LOSSES], rtol=0.02)
    assert {w.dtype for w in load_file(output / "model.safetensors").values()} == {torch.float32}


# --- what it logs ---------------------------------------------------------------------------------


def test_losses_of_selected_and_unselected_tokens_are_logged_apart(corpus, mask, tmp_path):
    output = tmp_path / "0"
    settings = {"learning_rate": 1e-12, "epochs": 1, "batch_size": 128, "accumulation": 1}
    losses = train_here(corpus, output, mask=mask, **settings)
    model = AutoModelForCausalLM.from_pretrained(output, local_files_only=True)
    blocks = Blocks(corpus, np.load(mask / "mask/shard-00000.npy"))
    rows = [blocks[index] for index in range(len(blocks))]
    tokens, marked = (torch.stack([row[key] for row in rows]) for key in ("input_ids", "labels"))
    labels, selected = unmark_labels(marked)
    with torch.no_grad():
        log_p = model(tokens).logits[:, :-1].log_softmax(-1)
    found = -log_p.gather(2, tokens[:, 1:, None])[..., 0]
    kept = labels[:, 1:] != IGNORED_LABEL
    for name, members in (("selected_loss", selected), ("unselected_loss", ~selected)):
        expected = found[kept & members[:, 1:]].mean()
        assert losses[name][0] == pytest.approx(float(expected), rel=1e-4)


def test_training_on_without_a_step_is_fine_tuning_without_suppression(corpus, mask, tmp_path):
    """Both begin with the same model; of one step on the whole corpus, they see the same losses."""
    train_here(corpus, tmp_path / "start", max_steps=4)
    whole = {"epochs": 1, "batch_size": 128, "accumulation": 1, "start_from": tmp_path / "start"}
    continued = train_here(corpus, tmp_path / "continued", **whole)
    tuned = train_here(corpus, tmp_path / "tuned", mask=mask, **whole)
    blocks = Blocks(corpus, np.load(mask / "mask/shard-00000.npy"))
    marked = torch.stack([blocks[row]["labels"] for row in range(len(blocks))])
    labels, selected = unmark_labels(marked[:, 1:])
    share = float(selected[labels != IGNORED_LABEL].double().mean())
    apart = share * tuned["selected_loss"][0] + (1 - share) * tuned["unselected_loss"][0]
    assert continued["loss"][0] == pytest.approx(apart, rel=1e-5)
    records = [read_json(tmp_path / name / "training.json") for name in ("continued", "tuned")]
    assert [record["mask_sha256"] is None for record in records] == [True, False]


def test_speed_is_recorded_and_utilisation_where_the_peak_is_known(corpus, mask, tmp_path):
    train_here(corpus, tmp_path / "0", max_steps=2, peak_flops=1e12)
    record = read_json(tmp_path / "0/training.json")
    assert record["tokens_per_second"] > 0
    assert record["flops_utilisation"] == pytest.approx(
        record["tokens_per_second"] * record["flops_per_token"] / 1e12
    )


# --- when it has to stop --------------------------------------------------------------------------


def test_an_explosion_of_clean_text_stops_with_the_last_good_checkpoint(corpus, mask, tmp_path):
    output = tmp_path / "0"
    suppress = {"objective": "published", "strength": 30.0}
    with pytest.raises(InputError, match="unselected tokens is .* times its lowest") as stopped:
        train_here(
            corpus,
            output,
            mask=mask,
            suppress=suppress,
            learning_rate=0.1,
            epochs=30,
            clip=0.0,
            explosion_factor=3.0,
        )
    assert "training.learning_rate" in str(stopped.value)
    kept = last_whole_checkpoint(tmp_path / ".0.checkpoints")
    assert kept and str(stopped.value).endswith(kept)
    history = read_json(Path(kept) / "trainer_state.json")["log_history"]
    clean = [record["unselected_loss"] for record in history]
    assert max(clean) <= 3 * min(clean)
    assert not output.exists()


def test_a_loss_that_is_not_finite_stops(corpus, tmp_path):
    with pytest.raises(InputError, match=r"training diverged: \w+ is (nan|inf) at step"):
        train_here(corpus, tmp_path / "0", learning_rate=1e30, clip=0.0, explosion_factor=None)
    assert not (tmp_path / "0").exists()


# --- however it is interrupted --------------------------------------------------------------------


def train_until_killed(command: list[str], step: int, while_saving: bool) -> None:
    """Train and kill this process after a step, or when that step's checkpoint is all but whole."""
    torch.set_num_threads(1)
    callback, event = (ListContents, "on_save") if while_saving else (StopAtBadLoss, "on_step_end")
    usual = getattr(callback, event)

    def usual_until_killed(self, arguments, state, control, **others):
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(self, arguments, state, control, **others)

    setattr(callback, event, usual_until_killed)
    run_here(command)


def test_a_training_killed_again_and_again_ends_with_the_same_bits(corpus, mask, tmp_path):
    settings = {"mask": mask, "architecture": WITH_DROPOUT, "checkpoint_steps": 3}
    torch.set_num_threads(1)
    train_here(corpus, tmp_path / "uninterrupted", **settings)
    command = training_command(corpus, tmp_path / "0", **settings)
    checkpoints = tmp_path / ".0.checkpoints"
    for step, while_saving, whole in [(2, False, None), (7, False, 6), (15, True, 12)]:
        killed = SERVER.Process(target=train_until_killed, args=(command, step, while_saving))
        killed.start()
        killed.join(timeout=600)
        assert killed.exitcode == -signal.SIGKILL
        found = sorted(checkpoints.glob(f"checkpoint-*/{CONTENTS}"))
        assert (f"checkpoint-{whole}" in {path.parent.name for path in found}) == bool(whole)
    # The newest whole one lost part of a file: the one before is taken.
    optimizer = checkpoints / "checkpoint-12/optimizer.pt"
    assert not (checkpoints / "checkpoint-15" / CONTENTS).exists()
    os.truncate(optimizer, optimizer.stat().st_size // 2)
    run_here(command)
    assert weights_of(tmp_path / "0") == weights_of(tmp_path / "uninterrupted")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "0/losses.csv"), pd.read_csv(tmp_path / "uninterrupted/losses.csv")
    )
    assert not checkpoints.exists()


def test_a_training_stopped_early_has_the_weights_of_a_checkpoint(corpus, mask, tmp_path):
    settings = {"mask": mask, "architecture": WITH_DROPOUT, "checkpoint_steps": 3}
    torch.set_num_threads(1)
    command = training_command(corpus, tmp_path / "0", **settings)
    killed = SERVER.Process(target=train_until_killed, args=(command, 13, False))
    killed.start()
    killed.join(timeout=600)
    checkpoint = tmp_path / ".0.checkpoints/checkpoint-12"
    steps = TrainerState.load_from_json(checkpoint / "trainer_state.json").max_steps
    train_here(corpus, tmp_path / "early", **settings, stop_at=12 / steps)
    early, saved = (
        load_file(path / "model.safetensors") for path in (tmp_path / "early", checkpoint)
    )
    assert early.keys() == saved.keys()
    assert all(early[name].equal(saved[name]) for name in saved)
    assert read_json(tmp_path / "early/training.json")["steps"] == 12 < steps


def test_only_whole_checkpoints_are_taken(tmp_path):
    for step in (5, 10, 15):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/weights").write_bytes(bytes(step))
        write_json(folder / CONTENTS, {"inner/weights": file_sha256(folder / "inner/weights")})
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-15")
    (tmp_path / "checkpoint-15" / CONTENTS).write_text("{", encoding="utf-8")
    damaged = bytes([*bytes(9), 1])  # of the same size
    (tmp_path / "checkpoint-10/inner/weights").write_bytes(damaged)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    assert last_whole_checkpoint(tmp_path / "missing") is None


# --- what it refuses ------------------------------------------------------------------------------


@pytest.fixture
def no_steps(monkeypatch):
    def train(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr("ifguide.models.training_run.train", train)


def refused(corpus, tmp_path, **settings) -> str:
    with pytest.raises(InputError) as error:
        train_here(corpus, tmp_path / "model", **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_mask_that_does_not_fit_is_refused_before_training(corpus, no_steps, tmp_path):
    shape = corpus.tokens.shards[0].shape
    cases = {
        "selects no token": (np.zeros(shape, bool), {}),
        f"selects all {corpus.meta['tokens']} tokens": (
            np.stack([corpus.valid(row) for row in range(len(corpus.tokens))]),
            {},
        ),
        f"but those of the tokens [{shape}]": (np.ones((shape[0], shape[1] + 1), bool), {}),
        "made from tokens 000000000000": (np.ones(shape, bool), {"tokens_sha256": "0" * 64}),
    }
    for number, (expected, (mask, changes)) in enumerate(cases.items()):
        write_mask(tmp_path / str(number), corpus, mask, **changes)
        assert expected in refused(corpus, tmp_path, mask=tmp_path / str(number))


def test_a_model_of_another_vocabulary_is_refused_before_training(corpus, no_steps, tmp_path):
    config = AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=1)
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    for rows in (len(tokenizer) - 1, len(tokenizer) + 5000):
        config.vocab_size = rows
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bare")
        message = refused(corpus, tmp_path, start_from=tmp_path / "bare")
        assert f"its vocabulary of {rows} is not that of the tokenizer" in message
    config.vocab_size = len(tokenizer)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    small_corpus(tmp_path / "words", documents=20)
    load_tokenizer(tmp_path / "words/tokenizer").save_pretrained(tmp_path / "other")
    assert "is not that of the tokenizer" in refused(
        corpus, tmp_path, start_from=tmp_path / "other"
    )


def test_a_block_longer_than_the_positions_is_refused_before_training(corpus, no_steps, tmp_path):
    architecture = WITH_DROPOUT | {"n_positions": 8}
    message = refused(corpus, tmp_path, architecture=architecture)
    assert "corpus.block_size: 24 is longer than the 8 positions" in message


def test_training_settings_are_those_of_the_config():
    assert set(TRAINING) == set(Training.model_fields)

"""A small start model and its corpus, and what a step that tunes it further makes of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from ifguide.data.corpus import Corpus
from ifguide.methods.step import registered_steps
from ifguide.models.training_progress import LogLine
from ifguide.models.training_run import TrainedModel, TrainingRun
from small_models import small_model
from small_training import TRAINING


def start_directory(folder: Path, corpus: Corpus, family: str = "gpt_neox") -> Path:
    """Save a random float32 model with the vocabulary of a corpus."""
    model = small_model(family, torch.float32, vocabulary=corpus.meta["vocabulary_size"])
    model.save_pretrained(folder)
    return folder


def tune(
    key: str,
    options: Mapping,
    given: Mapping[str, list[Path]],
    *,
    corpus: Corpus,
    start: Path,
    output: Path,
    **changes,
) -> TrainedModel:
    """Train by one step of a method, as a job does; `changes` are of the training settings."""
    step = registered_steps()[key].from_config(options)
    settings = TRAINING | changes
    checkpoint_steps = settings.pop("checkpoint_steps")
    run = TrainingRun(
        settings={
            "training": step.training(settings),
            "names": ["target", key],
            "training_seed": 0,
            "seed": 1,
        },
        tokenizer_directory=corpus.directory / "tokenizer",
        output=output,
        checkpoint_steps=checkpoint_steps,
        corpus_directory=corpus.directory,
        start_from=start,
    )
    return step.train(run, given)


def assert_same_weights(one: PreTrainedModel, other: PreTrainedModel) -> None:
    expected = other.state_dict()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def changed_parameters(one: PreTrainedModel, other: PreTrainedModel) -> set[str]:
    weights = dict(other.named_parameters())
    return {
        name for name, weight in one.named_parameters() if not torch.equal(weight, weights[name])
    }


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have every training die at a step, after its losses are logged."""

    def die(self, arguments, state, control, **_):
        if state.global_step == step:
            raise Interrupted

    monkeypatch.setattr(LogLine, "on_log", die)

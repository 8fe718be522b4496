"""Tuning a model further: the one that it goes on from, and what becomes of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from ifguide.models.causal_text_training import (
    TEXT_LOSS_COLUMNS,
    Batch,
    Loss,
    TextTrainer,
    learn_by,
)
from ifguide.models.loading import compute_device, load_model
from ifguide.models.training_run import TrainedModel, TrainingRun, tokens_learned_from


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with all dropout off: what is compared with another model is no noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model


def frozen_start(run: TrainingRun) -> PreTrainedModel:
    """Return the model that a run goes on from once more, to be compared with and never changed."""
    return load_model(run.start_from).to(compute_device()).requires_grad_(False)


def tuned(
    run: TrainingRun,
    model: PreTrainedModel,
    examples: Sequence,
    collate: Callable[[list], Batch],
    loss: Loss,
    *,
    purpose: str,
    record: dict | None = None,
    trainer: Callable[..., TextTrainer] = TextTrainer,
    **hashes: str,
) -> TrainedModel:
    """Tune a run's model by a loss, as `causal_text_training.learn_by` does; 0 epochs do nothing.

    record: what else is to be known of the model.
    """
    if run.training["epochs"] == 0:
        made_from = run.made_from(**hashes)
        del made_from["settings"]
        begun = {
            "steps": 0,
            "seconds": 0.0,
            "examples": len(examples),
            "tokens_sha256": tokens_learned_from(run.start_from),
        }
        trained = TrainedModel(model, [], TEXT_LOSS_COLUMNS, begun | made_from)
    else:
        trained = learn_by(
            run, loss, model, examples, collate, purpose=purpose, trainer=trainer, **hashes
        )
    return replace(trained, record={**trained.record, **(record or {})})

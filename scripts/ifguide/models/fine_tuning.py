"""Tuning a causal language model further by a loss of one's own, on the Trainer of `transformers`.

A killed tuning goes on from its last whole checkpoint and ends with the same bits.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback

from ifguide.models.checkpoints import (
    ListContents,
    keep_only_own_checkpoints,
    last_whole_checkpoint,
)
from ifguide.models.loading import compute_device, load_model, require_vocabulary
from ifguide.models.training import OwnParameterNames, training_arguments
from ifguide.models.training_progress import LogLine, StopAtBadLoss
from ifguide.models.training_run import TrainedModel, TrainingRun, tokens_learned_from

log = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
Collate = Callable[[Sequence], Batch]
# Of the model and a batch, on its device: the loss of the batch.
Loss = Callable[[PreTrainedModel, Batch], torch.Tensor]

COLUMNS = ("step", "epoch", "loss", "learning_rate")


class TuningTrainer(OwnParameterNames, Trainer):
    """Trainer whose loss is a function of the model and a batch."""

    def __init__(self, *arguments, loss: Loss, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.loss = loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return self.loss(model, inputs)


def start_model(run: TrainingRun) -> PreTrainedModel:
    """Return the model that a run goes on from. Raises InputError where its tokens are others."""
    model = load_model(run.start_from)
    require_vocabulary(run.start_from, model.config.vocab_size, run.tokenizer())
    return model


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


def positions_of(model: PreTrainedModel) -> int:
    """Return how many tokens a model can read at most."""
    return getattr(model.config, "max_position_embeddings", None) or 2**31


def tune(
    model: PreTrainedModel,
    examples: Sequence,
    collate: Collate,
    loss: Loss,
    *,
    settings: dict,
    checkpoints: Path,
    seed: int,
) -> tuple[list[dict], int]:
    """Tune `model` in place; return the log (COLUMNS) and the number of steps.

    settings: of the config section `training`, with one batch a step (`accumulation` 1); 0 epochs
    change nothing. Resumes from the last whole checkpoint below `checkpoints`. Raises InputError
    where the loss is not finite.
    """
    if settings["epochs"] == 0:
        return [], 0
    trainer = TuningTrainer(
        model=model,
        loss=loss,
        args=training_arguments(
            settings, checkpoints=checkpoints, seed=seed, use_cpu=not torch.cuda.is_available()
        ),
        train_dataset=examples,
        data_collator=collate,
        callbacks=[StopAtBadLoss(), ListContents(), LogLine()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    losses = [record for record in trainer.state.log_history if "loss" in record]
    return losses, trainer.state.global_step


def tuned(
    run: TrainingRun,
    model: PreTrainedModel,
    examples: Sequence,
    collate: Collate,
    loss: Loss,
    *,
    purpose: str,
    record: dict | None = None,
    **hashes: str,
) -> TrainedModel:
    """Tune the model of a run, and return it with what is recorded of it.

    purpose: what the order of examples is seeded by; hashes: of what the examples were made from;
    record: what else is to be known of the model.
    """
    made_from = run.made_from(**hashes)
    keep_only_own_checkpoints(run.checkpoints, made_from)
    log.info("%s: %d examples", " by ".join(run.settings["names"]), len(examples))
    started = time.monotonic()
    losses, steps = tune(
        model,
        examples,
        collate,
        loss,
        settings=run.training,
        checkpoints=run.checkpoints,
        seed=run.seed(purpose),
    )
    del made_from["settings"]
    return TrainedModel(
        model=model.eval(),
        losses=losses,
        columns=COLUMNS,
        record={
            "steps": steps,
            "seconds": time.monotonic() - started,
            "examples": len(examples),
            "tokens_sha256": tokens_learned_from(run.start_from),
            **(record or {}),
            **made_from,
        },
    )

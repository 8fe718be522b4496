"""Training a causal language model on texts of its own, by a loss of the method's.

The texts are padded on the right, where no token before them can see it. `learn_by` is what a train
step does: it resumes after an interruption, and ends with the same bits.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback

from ifguide.models.checkpoints import (
    ListContents,
    keep_only_own_checkpoints,
    last_whole_checkpoint,
)
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.precision import at_least_float32
from ifguide.models.training import OwnParameterNames, training_arguments
from ifguide.models.training_progress import LogLine, StopAtBadLoss
from ifguide.models.training_run import TrainedModel, TrainingRun, tokens_learned_from

log = logging.getLogger(__name__)

TEXT_LOSS_COLUMNS = ("step", "epoch", "loss", "learning_rate")
Batch = dict[str, torch.Tensor]
# Of a model and a batch, a scalar that is a mean over what the batch holds.
Loss = Callable[[PreTrainedModel, Batch], torch.Tensor]


def padded_batch(texts: Sequence[Sequence[int]]) -> Batch:
    """Return `input_ids` and `labels`, int64 (texts, longest); padding is 0 and has no label."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED_LABEL)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = labels[row, : len(text)] = torch.tensor(text)
    return {"input_ids": ids, "labels": labels}


def label_losses(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return -log p of each label after the tokens before it: (texts, T - 1), 0 where none is."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(
        at_least_float32(logits).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="none",
    )
    return losses.view(labels.shape)


def mean_label_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the mean of -log p over the label tokens of a batch: a scalar."""
    losses = label_losses(model, batch)
    return losses.sum() / (batch["labels"][:, 1:] != IGNORED_LABEL).sum()


class TextTrainer(OwnParameterNames, Trainer):
    """Trainer by a loss of the method's own."""

    def __init__(self, *arguments, loss: Loss, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.loss = loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self.loss(model, inputs)
        return (loss, None) if return_outputs else loss


def train_by(
    loss: Loss,
    model: PreTrainedModel,
    examples: Dataset | Sequence[Any],
    collate: Callable[[list], Batch],
    *,
    settings: dict,
    checkpoints: Path,
    seed: int,
    trainer: Callable[..., TextTrainer] = TextTrainer,
) -> tuple[list[dict], int]:
    """Train `model` in place; return the log of losses and the number of steps.

    settings: of the config section `training`. A step is `batch_size` examples, shuffled, times
    `accumulation`. Resumes from the last whole checkpoint below `checkpoints`. Raises InputError
    where the loss is not finite.
    """
    training = trainer(
        model=model,
        args=training_arguments(
            settings, checkpoints=checkpoints, seed=seed, use_cpu=not torch.cuda.is_available()
        ),
        train_dataset=examples,
        data_collator=collate,
        loss=loss,
        callbacks=[StopAtBadLoss(), ListContents(), LogLine()],
    )
    training.remove_callback(PrinterCallback)
    training.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    model.eval()
    losses = [record for record in training.state.log_history if "loss" in record]
    return losses, training.state.global_step


def learn_by(
    run: TrainingRun,
    loss: Loss,
    model: PreTrainedModel,
    examples: Dataset | Sequence[Any],
    collate: Callable[[list], Batch] = padded_batch,
    *,
    purpose: str,
    trainer: Callable[..., TextTrainer] = TextTrainer,
    **hashes: str,
) -> TrainedModel:
    """Train a run's model by a loss, as `train_by` does, and say what it was made from.

    purpose: of the random numbers; hashes: of what the examples were made from, recorded beside.
    """
    made_from = run.made_from(**hashes)
    keep_only_own_checkpoints(run.checkpoints, made_from)
    log.info("%s: %d examples", " by ".join(run.settings["names"]), len(examples))
    started = time.monotonic()
    losses, steps = train_by(
        loss,
        model,
        examples,
        collate,
        settings=run.training,
        checkpoints=run.checkpoints,
        seed=run.seed(purpose),
        trainer=trainer,
    )
    del made_from["settings"]
    return TrainedModel(
        model=model,
        losses=losses,
        columns=TEXT_LOSS_COLUMNS,
        record={
            "steps": steps,
            "seconds": time.monotonic() - started,
            "examples": len(examples),
            "tokens_sha256": tokens_learned_from(run.start_from),
            **made_from,
        },
    )

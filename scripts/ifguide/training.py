"""Training a causal language model with suppressed tokens, on the Trainer of `transformers`."""

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from ifguide.artifacts import atomic_path, read_json
from ifguide.corpus import Corpus, ShardedArray
from ifguide.errors import InputError
from ifguide.objective import IGNORED_LABEL, suppression_loss

log = logging.getLogger(__name__)


class Blocks(Dataset):
    """Training blocks, with the selection mask beside the tokens where there is one."""

    def __init__(self, corpus: Corpus, mask: ShardedArray | None) -> None:
        self.corpus = corpus
        self.mask = mask

    def __len__(self) -> int:
        return len(self.corpus.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(self.corpus.tokens[index].astype("int64"))
        valid = torch.from_numpy(self.corpus.valid(index))
        if self.mask is None:
            selected = torch.zeros_like(valid)
        else:
            selected = torch.from_numpy(self.mask[index].astype(bool))
        return {
            "input_ids": tokens,
            "labels": torch.where(valid, tokens, IGNORED_LABEL),
            "selected": selected,
        }


class OwnParameterNames:
    """Resume a Trainer from a checkpoint by the model's own loader, whatever names it saves."""

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # The Trainer's own way takes tensors by the names in the file. Those are not the model's
        # own in every family (gpt_neox saves its head as embed_out); the rest would stay random.
        saved = type(self.model).from_pretrained(
            resume_from_checkpoint,
            local_files_only=True,
            use_safetensors=True,
            dtype=self.model.dtype,
        )
        self.model.load_state_dict(saved.state_dict())


class SuppressionTrainer(OwnParameterNames, Trainer):
    """Trainer whose loss suppresses selected tokens and is normalised by label tokens.

    The Trainer counts the label tokens of the whole accumulated batch over all processes, so the
    loss does not depend on how a batch is divided.
    """

    def __init__(self, *arguments, objective: str, strength: float, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.objective = objective
        self.strength = strength
        self.model_accepts_loss_kwargs = True  # makes the Trainer count label tokens
        self.loss_is_scaled_for_ga = True
        # Sums of label losses and their counts, selected and unselected, since the last log.
        self.loss_sums = torch.zeros(2, 2, dtype=torch.float64)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        selected = inputs["selected"]
        outputs = model(input_ids=inputs["input_ids"], use_cache=False)
        total, losses = suppression_loss(
            outputs.logits,
            inputs["labels"],
            selected,
            objective=self.objective,
            strength=self.strength,
        )
        labelled = inputs["labels"][:, 1:] != IGNORED_LABEL
        marked = (selected[:, 1:] & labelled).flatten()
        unmarked = (~selected[:, 1:] & labelled).flatten()
        for row, members in enumerate((marked, unmarked)):
            self.loss_sums[row, 0] += (losses * members).sum().cpu()
            self.loss_sums[row, 1] += members.sum().cpu()
        # Gradients are averaged over processes, while num_items_in_batch counts all of them.
        loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for name, (total, count) in zip(
                ("selected_loss", "unselected_loss"), self.loss_sums.tolist(), strict=True
            ):
                if count:
                    logs[name] = total / count
            self.loss_sums.zero_()
        super().log(logs, start_time)


class StopAtBadLoss(TrainerCallback):
    """Stop with a clear error at a loss that is not finite, before it reaches a checkpoint."""

    def on_log(self, arguments, state, control, logs=None, **_):
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise InputError(
                    f"training diverged: {name} is {value} at step {state.global_step}; lower "
                    "training.learning_rate or the strength of the suppression, and run again from "
                    "the last checkpoint"
                )


class LogLine(TrainerCallback):
    """One plain line at each log, for a file that somebody follows."""

    def on_log(self, arguments, state, control, logs=None, **_):
        if logs and "loss" in logs:
            figures = "  ".join(
                f"{name} {logs[name]:.4f}"
                for name in ("loss", "selected_loss", "unselected_loss")
                if name in logs
            )
            log.info("step %d of %d  %s", state.global_step, state.max_steps, figures)


def training_arguments(
    settings: dict,
    *,
    checkpoints: Path,
    seed: int,
    use_cpu: bool,
    kind: type[TrainingArguments] = TrainingArguments,
    **further,
) -> TrainingArguments:
    """Translate the config section `training` into the Trainer's arguments.

    `kind` and `further` are those of another Trainer with arguments of its own.
    """
    return kind(
        output_dir=str(checkpoints),
        num_train_epochs=settings["epochs"],
        max_steps=settings.get("max_steps") or -1,
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=settings["accumulation"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=settings["warmup"],
        weight_decay=settings["weight_decay"],
        adam_beta1=settings["betas"][0],
        adam_beta2=settings["betas"][1],
        adam_epsilon=settings["epsilon"],
        max_grad_norm=settings["clip"],
        bf16=settings["precision"] == "bfloat16",
        activation_checkpointing=settings["gradient_checkpointing"],
        torch_compile=settings["compile"],
        logging_steps=settings["log_steps"],
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings["checkpoint_steps"],
        save_total_limit=2,
        seed=seed % 2**32,
        data_seed=seed % 2**32,
        use_cpu=use_cpu,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        **further,
    )


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, or None.

    The Trainer writes the state file last, so a checkpoint without a readable one was interrupted.
    """
    while checkpoints.is_dir() and (newest := get_last_checkpoint(str(checkpoints))):
        try:
            read_json(Path(newest) / "trainer_state.json")
            return newest
        except (InputError, FileNotFoundError):
            log.warning("%s is incomplete; going back to the one before", newest)
            Path(newest).rename(Path(newest).with_name(f"incomplete-{Path(newest).name}"))
    return None


def train(
    model: PreTrainedModel,
    corpus: Corpus,
    *,
    settings: dict,
    mask: ShardedArray | None,
    objective: str,
    strength: float,
    checkpoints: Path,
    seed: int,
) -> tuple[list[dict], int]:
    """Train `model` in place on `corpus`; return the log of losses and the number of steps.

    Resumes from the last whole checkpoint below `checkpoints`, which the caller deletes when the
    result is saved. Raises InputError where the loss is not finite.
    """
    trainer = SuppressionTrainer(
        model=model,
        args=training_arguments(
            settings, checkpoints=checkpoints, seed=seed, use_cpu=not torch.cuda.is_available()
        ),
        train_dataset=Blocks(corpus, mask),
        callbacks=[StopAtBadLoss(), LogLine()],
        objective=objective,
        strength=strength,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    losses = [record for record in trainer.state.log_history if "loss" in record]
    return losses, trainer.state.global_step


LOSS_COLUMNS = ("step", "epoch", "loss", "selected_loss", "unselected_loss", "learning_rate")


def write_losses(
    path: str | Path, records: list[dict], columns: Sequence[str] = LOSS_COLUMNS
) -> None:
    """Write the log of losses as CSV; a loss that does not exist is an empty field."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(records)

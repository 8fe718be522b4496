"""How the small judges and reward models are trained on labelled texts."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback


def train_on_texts(
    trainer: type[Trainer],
    model: PreTrainedModel,
    texts: Dataset,
    collate: Callable,
    *,
    settings: dict,
    seed: int,
    scratch: Path,
    **further,
) -> PreTrainedModel:
    """Train `model` in place on `texts`, by `trainer`'s loss; return it in evaluation mode.

    settings: epochs, batch_size, learning_rate. `further` are arguments of the Trainer's own.
    """
    training = trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            weight_decay=0.01,
            logging_steps=100,
            save_strategy="no",
            seed=seed % 2**32,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            **further,
        ),
        train_dataset=texts,
        data_collator=collate,
    )
    training.remove_callback(PrinterCallback)
    training.train()
    return model.eval()

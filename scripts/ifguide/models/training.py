"""Training a causal language model with suppressed tokens, on the Trainer of `transformers`."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ifguide.data.corpus import Corpus, ShardedArray
from ifguide.models.checkpoints import (
    ListContents,
    keep_only_own_checkpoints,
    last_whole_checkpoint,
)
from ifguide.models.costs import training_flops
from ifguide.models.devices import peak_flops
from ifguide.models.model_shapes import model_shape
from ifguide.models.precision import emulates_bfloat16
from ifguide.models.suppression_mixin import SuppressionMixin
from ifguide.models.throughput import Speed
from ifguide.models.training_blocks import BlockOrder, Blocks, OrderOfEpoch, divide_step
from ifguide.models.training_progress import (
    LogLine,
    ProgressBar,
    StartClock,
    StopAtBadLoss,
    StopAtShare,
)

log = logging.getLogger(__name__)


class OwnParameterNames:
    """Resume a Trainer from a checkpoint by the model's own loader, whatever names it saves."""

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        # The Trainer's own way takes tensors by the names in the file. Those are not the model's
        # own in every family (gpt_neox saves its head as embed_out); the rest would stay random.
        saved = type(self.model).from_pretrained(
            resume_from_checkpoint,
            local_files_only=True,
            use_safetensors=True,
            dtype=self.model.dtype,
        )
        self.model.load_state_dict(saved.state_dict())


class SuppressionTrainer(OwnParameterNames, SuppressionMixin, Trainer):
    """Trains on blocks, in an order that does not depend on how many processes share a step."""

    def __init__(self, *arguments, peak: float | None, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.order = BlockOrder(
            len(self.train_dataset),
            self.args.per_device_train_batch_size
            * self.args.gradient_accumulation_steps
            * self.args.world_size,
            self.args.data_seed,
        )
        self.add_callback(OrderOfEpoch(self.order))
        self.speed = Speed(
            training_flops(model_shape(self.model), self.train_dataset.corpus.block_size),
            None if peak is None else peak * self.args.world_size,
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> BlockOrder:
        return self.order

    def also_logged(self, labels: int) -> dict[str, float]:
        return self.speed.since_last(labels)


def training_arguments(
    settings: dict,
    *,
    checkpoints: Path,
    seed: int,
    use_cpu: bool,
    processes: int = 1,
    kind: type[TrainingArguments] = TrainingArguments,
    **further,
) -> TrainingArguments:
    """Translate the config section `training` into the Trainer's arguments for one process.

    `kind` and `further` are those of another Trainer with arguments of its own. Raises InputError
    where the blocks of a step cannot be divided among the processes.
    """
    batch_size, accumulation = divide_step(
        settings["batch_size"], settings["accumulation"], processes
    )
    # Accelerate shards on accelerators only; on the CPU every process keeps the whole model.
    sharded = settings["fsdp"] and processes > 1 and not use_cpu
    arguments = kind(
        output_dir=str(checkpoints),
        num_train_epochs=settings["epochs"],
        max_steps=settings.get("max_steps") or -1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=settings["warmup"],
        weight_decay=settings["weight_decay"],
        adam_beta1=settings["betas"][0],
        adam_beta2=settings["betas"][1],
        adam_epsilon=settings["epsilon"],
        max_grad_norm=settings["clip"],
        bf16=settings["precision"] == "bfloat16",
        activation_checkpointing=settings["gradient_checkpointing"] and not sharded,
        torch_compile=settings["compile"],
        fsdp=True if sharded else None,
        fsdp_config=(
            {"activation_checkpointing": settings["gradient_checkpointing"]} if sharded else None
        ),
        ddp_backend="gloo" if use_cpu and processes > 1 else None,
        ddp_find_unused_parameters=False,
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
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process takes one device: its threads do not divide a batch
    return arguments


@dataclass(frozen=True)
class Trained:
    """What a training leaves besides the model: records of losses, steps, speed, and the weights.

    weights: state of the whole model, gathered from all processes; None in all but the first.
    """

    losses: list[dict]
    steps: int
    speed: dict[str, float | None]
    processes: int
    device: str
    weights: dict[str, torch.Tensor] | None


def train(
    model: PreTrainedModel,
    corpus: Corpus,
    *,
    settings: dict,
    mask: ShardedArray | None,
    objective: str,
    strength: float,
    hidden: int | None = None,
    checkpoints: Path,
    made_from: dict | None = None,
    seed: int,
    processes: int = 1,
) -> Trained:
    """Train `model` in place on `corpus`, one of `processes` that share every step.

    hidden: the id that stands in the input for the tokens of `mask`; None leaves them there.
    Resumes from the last whole checkpoint below `checkpoints` that was `made_from` the same
    settings and data (None asks nothing); the caller deletes the folder when the result is saved.
    Raises InputError where the loss is not finite or explodes.
    """
    use_cpu = not torch.cuda.is_available()
    arguments = training_arguments(
        settings, checkpoints=checkpoints, seed=seed, use_cpu=use_cpu, processes=processes
    )
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0 and made_from is not None:
            keep_only_own_checkpoints(checkpoints, made_from)
        resumed = last_whole_checkpoint(checkpoints)
    device = "cpu" if use_cpu else torch.cuda.get_device_name()
    if use_cpu and settings["precision"] == "bfloat16" and emulates_bfloat16():
        log.warning(
            "config key training.precision: this processor is many times slower with bfloat16 than "
            "with float32"
        )
    trainer = SuppressionTrainer(
        model=model,
        args=arguments,
        train_dataset=Blocks(corpus, mask, hidden),
        objective=objective,
        strength=strength,
        peak=settings["peak_flops"] or peak_flops(device, settings["precision"]),
    )
    trainer.remove_callback(PrinterCallback)
    for callback in (
        StartClock(trainer.speed),
        StopAtBadLoss(settings["explosion_factor"]),
        StopAtShare(settings.get("stop_at", 1)),
        ListContents(),
        LogLine(),
        *([ProgressBar()] if sys.stderr.isatty() and arguments.process_index == 0 else []),
    ):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resumed)
    return Trained(
        losses=[record for record in trainer.state.log_history if "loss" in record],
        steps=trainer.state.global_step,
        speed=trainer.speed.overall(),
        processes=processes,
        device=device,
        weights=trainer.accelerator.get_state_dict(trainer.model),
    )

"""Direct preference optimisation (Rafailov et al., 2023) of a causal language model, by TRL.

With π the model, π₀ the frozen model that it began as, and y₊, y₋ the two sides after prompt x,

    loss = −log σ( r(x, y₊) − r(x, y₋) ),      r(x, y) = β log( π(y | x) / π₀(y | x) )

averaged over pairs; the difference of the implicit rewards r is called the margin.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.data.pair_files import PairFiles
from ifguide.methods.step import Given, Need, Pairs, Sizes, Step, with_own_training
from ifguide.models import costs, footprints
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ifguide.models.training_run import TrainedModel, TrainingRun

log = logging.getLogger(__name__)

SIDE_TOKENS = 50  # of one text of a pair, its prompt included, where a plan has not read it
LOSS_COLUMNS = ("step", "epoch", "loss", "reward_margin", "reward_accuracy", "learning_rate")


class DpoOptions(PairFiles):
    """Train the model of `start_from` on pairs of a preferred and a rejected text, by direct
    preference optimisation. What is not given here comes from `training`."""

    beta: Annotated[
        float,
        Field(gt=0, description="How strongly the model is held to the one that it began as."),
    ] = 0.1
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1
    batch_size: Annotated[int, Field(ge=1, description="Pairs a device takes at once.")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1.0e-6
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises."),
    ] = 0.1


class Dpo(Step):
    stage = "train"
    Options = DpoOptions
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

    def needs(self) -> dict[str, Need]:
        options = self.options
        return {"pairs": Pairs(options.pairs, options.format, options.part, options.limit)}

    def training(self, settings: dict) -> dict:
        """Every step is one batch of pairs, and the options here come before `training`."""
        options = self.options
        return with_own_training(
            settings,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warmup=options.warmup,
        )

    def work(self, sizes: Sizes) -> Work:
        """Training on both sides of every pair; the reference model reads them too."""
        tokens = 2 * self.options.epochs * sizes.records("pairs") * SIDE_TOKENS
        training = {**sizes.training, "batch_size": self.options.batch_size}
        reference = Work(
            flops=tokens * costs.forward_flops(sizes.shape, SIDE_TOKENS),
            # Held beside the model that is trained.
            memory=footprints.FLOAT * sizes.shape.parameters,
        )
        return training_work(sizes.shape, training, tokens, SIDE_TOKENS).beside(reference)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.data.preferences import PreferencePair
        from ifguide.files.artifacts import read_jsonl
        from ifguide.files.checksums import file_sha256
        from ifguide.models.checkpoints import keep_only_own_checkpoints
        from ifguide.models.loading import load_model
        from ifguide.models.pair_texts import tokenize_pairs
        from ifguide.models.training_run import TrainedModel, tokens_learned_from

        (path,) = given["pairs"]
        model, tokenizer, positions = run.model_to_tune()
        pairs = [PreferencePair(**record) for record in read_jsonl(path)]
        examples = tokenize_pairs(tokenizer, pairs, positions)
        made_from = run.made_from(pairs_sha256=file_sha256(path))
        keep_only_own_checkpoints(run.checkpoints, made_from)
        log.info("%s: %d pairs", " by ".join(run.settings["names"]), len(examples))
        started = time.monotonic()
        losses, steps = train_on_pairs(
            model,
            load_model(run.start_from),
            run.tokenizer(),
            examples,
            settings=run.training,
            beta=self.options.beta,
            checkpoints=run.checkpoints,
            seed=run.seed("dpo"),
        )
        del made_from["settings"]
        return TrainedModel(
            model=model,
            losses=losses,
            columns=LOSS_COLUMNS,
            record={
                "steps": steps,
                "seconds": time.monotonic() - started,
                "pairs": len(examples),
                "tokens_sha256": tokens_learned_from(run.start_from),
                **made_from,
            },
        )


def train_on_pairs(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[dict[str, list[int]]],
    *,
    settings: dict,
    beta: float,
    checkpoints: Path,
    seed: int,
) -> tuple[list[dict], int]:
    """Train `model` in place by DPO; return the log (LOSS_COLUMNS) and the number of steps.

    `reference` has the weights that `model` begins with; `examples` come from `tokenize_pairs`.
    Resumes from the last whole checkpoint below `checkpoints`. Raises InputError where the loss is
    not finite. TRL gives the tokenizer a padding token.
    """
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    from ifguide.models.checkpoints import ListContents, last_whole_checkpoint
    from ifguide.models.training import OwnParameterNames, training_arguments
    from ifguide.models.training_progress import LogLine, StopAtBadLoss

    class PairTrainer(OwnParameterNames, DPOTrainer):
        """DPOTrainer on pairs that are tokens already, so that no side gets an end of text."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

    padding = model.config.pad_token_id
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        processing_class=tokenizer,
        args=training_arguments(
            settings,
            checkpoints=checkpoints,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            kind=DPOConfig,
            beta=beta,
            max_length=None,
            gradient_checkpointing=None,  # TRL's default is on; `activation_checkpointing` decides
        ),
        train_dataset=Dataset.from_list(list(examples)),
        callbacks=[StopAtBadLoss(), ListContents(), LogLine()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(checkpoints))
    model.config.pad_token_id = model.generation_config.pad_token_id = padding
    losses = [
        {
            **record,
            "reward_margin": record["rewards/margins"],
            "reward_accuracy": record["rewards/accuracies"],
        }
        for record in trainer.state.log_history
        if "loss" in record
    ]
    return losses, trainer.state.global_step

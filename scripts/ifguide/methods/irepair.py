"""Repair the most sensitive block of each step (IRepair, 2025, arXiv 2502.07072).

A model learns harmless texts, and in each step only in the blocks that they move most, while it is
held to the model that it began as: `models.block_repair` has the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.data.pair_files import PairFiles
from ifguide.methods.step import (
    Given,
    LabelledTexts,
    Need,
    Pairs,
    Sizes,
    Step,
    with_own_training,
)
from ifguide.models import costs, footprints
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work
from ifguide.settings import OrAbsent

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from ifguide.models.token_texts import TokenText
    from ifguide.models.training_run import TrainedModel, TrainingRun

TEXT_TOKENS = 50  # of one text, where a plan has not read it


class RepairSettings(FineTuningSettings):
    """What is common to learning from pairs and from labelled texts."""

    clean_texts: Annotated[
        OrAbsent[str],
        Field(
            description="Name of an entry of `texts`, on whose nontoxic texts the model is held to "
            "the one that it began as; on those that it learns, where it is not given."
        ),
    ] = None
    divergence: Annotated[
        float,
        Field(ge=0, description="How strongly it is held: weight λ of the divergence."),
    ] = 1.0
    share: Annotated[
        OrAbsent[float],
        Field(
            gt=0,
            le=1,
            description="Share of the blocks that change in a step, rounded up; one block, where "
            "it is not given.",
        ),
    ] = None
    sensitivity: Annotated[
        Literal["norm", "rms"],
        Field(
            description="Blocks are compared by the norm of their gradients, or by the root of the "
            "mean square, which leaves out how many parameters they have."
        ),
    ] = "norm"


class RepairOnPairs(PairFiles, RepairSettings):
    """Train the model of `start_from` on the harmless sides of pairs, in each step only the blocks
    that these move most."""


class RepairOnTexts(RepairSettings):
    """Train the model of `start_from` on nontoxic labelled texts, in each step only the blocks that
    these move most."""

    texts: Annotated[
        str, Field(description="Name of an entry of `texts`; its nontoxic texts are learned.")
    ]


class Irepair(Step):
    stage = "train"
    Options = RepairOnPairs | RepairOnTexts
    strength = "epochs"
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

    def needs(self) -> dict[str, Need]:
        options = self.options
        found: dict[str, Need] = {}
        if isinstance(options, RepairOnPairs):
            found["pairs"] = Pairs(options.pairs, options.format, options.part, options.limit)
        else:
            found["texts"] = LabelledTexts(options.texts)
        if options.clean_texts is not None:
            found["clean_texts"] = LabelledTexts(options.clean_texts)
        return found

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        """A pass to learn and one to be held, forward and backward, and the start model's own."""
        options = self.options
        on_pairs = isinstance(options, RepairOnPairs)
        records = sizes.records("pairs") if on_pairs else sizes.records("texts") / 2
        tokens = options.epochs * records * TEXT_TOKENS
        learning = training_work(sizes.shape, sizes.training, tokens, TEXT_TOKENS)
        if options.divergence == 0:
            return learning
        start = Work(
            flops=tokens * costs.forward_flops(sizes.shape, TEXT_TOKENS),
            # Held beside the model that is trained.
            memory=footprints.FLOAT * sizes.shape.parameters,
        )
        holding = training_work(sizes.shape, sizes.training, tokens, TEXT_TOKENS)
        return learning.then(holding).beside(start)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from dataclasses import replace
        from functools import partial

        from ifguide.files.checksums import file_sha256
        from ifguide.models.block_repair import (
            REPAIR_COLUMNS,
            RepairTexts,
            RepairTrainer,
            learning_loss,
            stacked_repair,
            times_chosen,
        )
        from ifguide.models.fine_tuning import frozen_start, tuned, without_dropout

        options = self.options
        model, tokenizer, positions = run.model_to_tune()
        (learned,) = given["pairs" if isinstance(options, RepairOnPairs) else "texts"]
        (kept,) = given.get("clean_texts", [learned])
        to_learn, to_keep = (
            harmless_texts(path, tokenizer, positions, pairs=path in given.get("pairs", []))
            for path in (learned, kept)
        )
        trained = tuned(
            run,
            without_dropout(model),
            [
                RepairTexts(text, to_keep[number % len(to_keep)])
                for number, text in enumerate(to_learn)
            ],
            stacked_repair,
            learning_loss,
            trainer=partial(
                RepairTrainer,
                start=frozen_start(run) if options.divergence else None,
                weight=options.divergence,
                share=options.share,
                measure=options.sensitivity,
            ),
            purpose="irepair",
            learned_sha256=file_sha256(learned),
            kept_sha256=file_sha256(kept),
        )
        chosen = times_chosen(trained.losses)
        record = {**trained.record, "steps_by_block": chosen}
        return replace(trained, columns=REPAIR_COLUMNS, record=record)


def harmless_texts(
    path: Path, tokenizer: PreTrainedTokenizerBase, positions: int, *, pairs: bool
) -> list[TokenText]:
    """Return the preferred sides of a file of pairs, or the nontoxic ones of labelled texts.

    Each follows on an end of text, and loses its end where it exceeds a model's `positions`.
    """
    from ifguide.data.labelled_texts import read_texts
    from ifguide.models.activations import encode_after_end_of_text
    from ifguide.models.pair_texts import pair_texts, read_pairs_file
    from ifguide.models.token_texts import TokenText

    if pairs:
        sides = pair_texts(tokenizer, read_pairs_file(path), positions)
        return [pair.harmless for pair in sides]
    texts = encode_after_end_of_text(tokenizer, read_texts(path).nontoxic, positions)
    return [TokenText(ids) for ids in texts]

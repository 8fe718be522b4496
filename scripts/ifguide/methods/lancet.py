"""LANCET-style post-training (after arXiv 2412.16451): away from the documents that caused it.

The documents of a corpus are ranked by their influence on what a model should not say. Those of the
highest influence and those of the lowest are learned against each other, in the form of preference
pairs or of a proximal Bregman response: `models.influence_tuning` has the losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import Given, Need, Ranking, Sizes, Step, with_own_training
from ifguide.models import costs, footprints
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from pathlib import Path

    from ifguide.data.corpus import Corpus
    from ifguide.models.influence_tuning import InfluenceTexts
    from ifguide.models.training_run import TrainedModel, TrainingRun

# The options that each form uses, of those that not all do.
FORMS = {
    "pair": {"beta", "divergence"},
    "pbrf": {"damping", "epsilon", "highest_loss"},
    "ascent": {"divergence", "highest_loss"},
}


class LancetOptions(FineTuningSettings):
    """Train the model of `start_from` against the documents of the highest influence on what it
    should not say."""

    selection: Annotated[
        str,
        Field(
            description="Name of the entry of `influence.selections` that ranks the documents: by "
            "`rank_by: influence`, along a direction of the model's own toxic continuations."
        ),
    ]
    scores: Annotated[
        Literal["ranked", "random"],
        Field(description="The documents as they are ranked or, as a control, in a random order."),
    ] = "ranked"
    share: Annotated[
        float,
        Field(
            gt=0,
            lt=0.5,
            description="Share of the documents that is learned from at either end of the ranking.",
        ),
    ] = 0.01
    form: Annotated[
        Literal["pair", "pbrf", "ascent"],
        Field(
            description="Preference pairs, a proximal Bregman response, or plain gradient ascent "
            "on the documents of the highest influence, a control."
        ),
    ] = "pair"
    beta: Annotated[float, Field(ge=0, description="Of pairs: the weight of log-ratios, β.")] = 0.1
    divergence: Annotated[
        float,
        Field(
            ge=0,
            description="Of pairs and ascent: the weight μ of the divergence from the start model "
            "on other documents.",
        ),
    ] = 1.0
    damping: Annotated[
        float,
        Field(ge=0, description="Of a response: the weight λ of the distance of the weights."),
    ] = 0.001
    epsilon: Annotated[
        float, Field(ge=0, description="Of a response: the weight ε of the documents' losses.")
    ] = 0.1
    highest_loss: Annotated[
        float | None,
        Field(
            gt=0,
            description="Of a response and of ascent: nats a token above which a document's loss "
            "is raised no further; null sets no bound.",
        ),
    ] = 8.0
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1.0e-5


class Lancet(Step):
    stage = "train"
    Options = LancetOptions
    strength = "epochs"
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

    def needs(self) -> dict[str, Need]:
        return {"selection": Ranking(self.options.selection)}

    def mistake(self) -> tuple[str, str] | None:
        form, fields = self.options.form, LancetOptions.model_fields
        # Defaults are filled in before: only another value was meant to be used.
        unused = sorted(
            name
            for name in set.union(*FORMS.values()) - FORMS[form]
            if getattr(self.options, name) != fields[name].default
        )
        return (unused[0], f"is not used by form: {form}") if unused else None

    def training(self, settings: dict) -> dict:
        """Weights are held to those of the start model, if to any, and not to zero."""
        own = self.options.own_training()
        return with_own_training(settings, weight_decay=0.0, **own)

    def work(self, sizes: Sizes) -> Work:
        """Training on three texts a document of a side; the start model reads them too."""
        tokens = 3 * self.options.epochs * self.options.share * sizes.corpus_tokens
        reference = Work(
            flops=tokens * costs.forward_flops(sizes.shape, sizes.block_size),
            memory=footprints.FLOAT * sizes.shape.parameters,
        )
        training = {**sizes.training, "batch_size": 3 * self.options.batch_size}
        return training_work(sizes.shape, training, tokens, sizes.block_size).beside(reference)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.files.checksums import file_sha256
        from ifguide.models.fine_tuning import (
            frozen_start,
            tuned,
            without_dropout,
        )
        from ifguide.models.influence_tuning import stacked_influence

        (folder,) = given["selection"]
        corpus = run.open_corpus()
        model, _, positions = run.model_to_tune()
        length = min(corpus.block_size, positions)
        examples = self.examples(corpus, folder, length, run.seed("lancet"))
        reference = frozen_start(run)
        return tuned(
            run,
            without_dropout(model),
            examples,
            stacked_influence,
            lambda model, batch: self.loss(model, reference, batch),
            purpose="lancet",
            ranking_sha256=file_sha256(folder / "documents.csv"),
        )

    def examples(
        self, corpus: Corpus, folder: Path, length: int, seed: int
    ) -> list[InfluenceTexts]:
        """Return the texts that are learned from: of a long document its first `length` tokens."""
        import numpy as np

        from ifguide.files.artifacts import read_json, require_same
        from ifguide.files.tables import read_table
        from ifguide.models.influence_tuning import InfluenceTexts, extremes
        from ifguide.models.token_texts import corpus_texts

        record = read_json(folder / "selection.json")
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], folder)
        unit = "block" if record["settings"]["documents"] == "block" else "document"
        order = read_table(folder / "documents.csv")["document"].to_numpy()
        generator = np.random.default_rng(seed)
        if self.options.scores == "random":
            order = generator.permutation(order)
        causing, inhibiting, others = extremes(order, self.options.share)
        if not others:
            raise InputError(
                f"{folder}/documents.csv: {len(order)} documents leave none between both ends of "
                "the ranking; lower `share`"
            )
        drawn = generator.choice(others, len(causing), replace=len(causing) > len(others)).tolist()
        kinds = [
            [pieces[0] for pieces in corpus_texts(corpus, unit, numbers, length) if pieces]
            for numbers in (inhibiting, causing, drawn)
        ]
        return [InfluenceTexts(*texts) for texts in zip(*kinds, strict=False)]

    def loss(self, model, reference, batch):
        """Return the loss of a batch of `influence_tuning.stacked_influence`."""
        import torch

        from ifguide.models.influence_tuning import (
            bounded,
            pair_loss,
            response_term,
            squared_distance,
        )
        from ifguide.models.token_texts import mean_divergence, next_token_log_p, text_losses

        options = self.options
        labels = batch["labels"]
        log_p = next_token_log_p(model, batch["input_ids"])
        with torch.no_grad():
            start = next_token_log_p(reference, batch["input_ids"])
        inhibiting, causing, _ = text_losses(log_p, labels).chunk(3)
        others = slice(2 * len(labels) // 3, None)
        divergence = mean_divergence(start[others], log_p[others], labels[others])
        match options.form:
            case "pair":
                before = text_losses(start, labels).chunk(3)
                ratios = before[0] - inhibiting, before[1] - causing
                return pair_loss(*ratios, options.beta) + options.divergence * divergence
            case "pbrf":
                distance = squared_distance(model, reference)
                return (
                    divergence
                    + options.damping / 2 * distance
                    + response_term(inhibiting, causing, options.epsilon, options.highest_loss)
                )
            case "ascent":
                return (
                    options.divergence * divergence - bounded(causing, options.highest_loss).mean()
                )

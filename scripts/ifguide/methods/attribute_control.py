"""Attribute-controlled fine-tuning (after arXiv 2410.05559), with the auxiliary model of NADO.

R says of every next token how likely the text stays harmless, and q ∝ p₀ · R^f is the frozen start
model p₀ steered by it (`models.attribute_model`). On what the start model wrote itself,

    loss = −mean log p(token | those before it), of harmless texts  +  λ KL(q || p), of all texts
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import Generations, Given, Need, Sizes, Step, with_own_training
from ifguide.models import costs, footprints
from ifguide.models.fine_tuning_settings import FineTuningSettings
from ifguide.models.work import Work, training_work

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun


class AttributeControlOptions(FineTuningSettings):
    """Teach the model of `start_from` to speak as it would if its tokens were drawn in proportion
    to how likely the text stays harmless, as learned from texts that it wrote itself."""

    generations: Annotated[str, Field(description="Name of an entry of `own_generations`.")]
    factor: Annotated[
        float, Field(ge=0, description="Power f of the probability that the text stays harmless.")
    ] = 2.0
    divergence: Annotated[
        float,
        Field(
            ge=0,
            description="Weight λ of the divergence from the steered model; 0 is plain "
            "fine-tuning on the harmless ones of the texts.",
        ),
    ] = 1.0


class AttributeControl(Step):
    stage = "train"
    Options = AttributeControlOptions
    strength = "epochs"
    reads_corpus = False
    needs_start = True
    shares_steps = False
    losses_of_tokens = False

    def needs(self) -> dict[str, Need]:
        return {"generations": Generations(self.options.generations)}

    def training(self, settings: dict) -> dict:
        return with_own_training(settings, **self.options.own_training())

    def work(self, sizes: Sizes) -> Work:
        """Training on every text, counted as if it filled a block; the start model reads it too."""
        tokens = self.options.epochs * sizes.records("generations") * sizes.block_size
        reference = Work(
            flops=tokens * costs.forward_flops(sizes.shape, sizes.block_size),
            memory=footprints.FLOAT * sizes.shape.parameters,
        )
        training = training_work(sizes.shape, sizes.training, tokens, sizes.block_size)
        return training.beside(reference)

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.files.checksums import file_sha256
        from ifguide.models.attribute_texts import (
            attribute_texts,
            fit_on_generations,
            stacked_attribute,
        )
        from ifguide.models.fine_tuning import frozen_start, tuned, without_dropout

        (path,) = given["generations"]
        model, _, positions = run.model_to_tune()
        start = frozen_start(run)
        attribute = fit_on_generations(start, path)
        attribute = {name: tensor.to(start.device) for name, tensor in attribute.items()}
        return tuned(
            run,
            without_dropout(model),
            attribute_texts(path, positions),
            stacked_attribute,
            lambda model, batch: self.loss(model, start, attribute, batch),
            purpose="attribute control",
            generations_sha256=file_sha256(path),
        )

    def loss(self, model, start, attribute, batch):
        """Return the loss of a batch of `attribute_texts.stacked_attribute`."""
        from ifguide.models.attribute_model import harmless_label_loss, steered_log_q
        from ifguide.models.token_texts import mean_divergence, next_token_log_p

        log_p = next_token_log_p(model, batch["input_ids"])
        log_q = steered_log_q(start, attribute, batch["input_ids"], self.options.factor)
        divergence = mean_divergence(log_q, log_p, batch["labels"])
        return harmless_label_loss(log_p, batch) + self.options.divergence * divergence

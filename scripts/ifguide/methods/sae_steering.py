"""Steering by features of a sparse autoencoder, always on, after "Breaking Bad Tokens" (2025).

With d_f the decoder's directions of the features that tell toxic texts best, and n the mean length
of the states after a block,

    x ← x − α n Σ_f d_f

after that block, at every token: a bias of the block's last layer (`models.residual_steering`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import EditJob, Given, LabelledTexts, Need, Sizes, Step
from ifguide.models import footprints
from ifguide.models.work import Work, reading_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ifguide.models.residual_steering import Steering

TEXT_TOKENS = 40  # of a labelled text, for a plan
TEXTS_AT_ONCE = 32


class SaeSteeringOptions(Settings):
    """Steer away from what tells toxic texts in the residual stream, at every token."""

    texts: Annotated[str, Field(min_length=1, description="Name of an entry of `texts`.")]
    direction: Annotated[
        Literal["feature", "mean_difference"],
        Field(
            description="What is steered away from: features of a sparse autoencoder that is "
            "trained on the texts, or, as a control, the mean state of toxic texts less that of "
            "others."
        ),
    ] = "feature"
    block: Annotated[
        int | None,
        Field(
            ge=1,
            description="Number of the block, from 1 on, after which the states are steered; null "
            "takes the one in the middle.",
        ),
    ] = None
    features: Annotated[
        int, Field(ge=1, description="So many features, those that tell toxic texts best.")
    ] = 1
    max_length: Annotated[int, Field(ge=2, description="Tokens of a text, at most.")] = 128
    expansion: Annotated[
        int,
        Field(ge=1, description="Features of the autoencoder for each dimension of the states."),
    ] = 4
    l1: Annotated[
        float, Field(ge=0, description="Weight of the features' sum beside the squared error.")
    ] = 3.0
    steps: Annotated[int, Field(ge=1, description="Training steps of the autoencoder.")] = 2000
    batch_size: Annotated[int, Field(ge=1, description="States a step.")] = 1024
    learning_rate: Annotated[
        float, Field(gt=0, description="Learning rate of the autoencoder.")
    ] = 1.0e-3
    strength: Annotated[
        float,
        Field(
            ge=0,
            description="How far the states are moved, in units of their mean length; 0 changes "
            "nothing.",
        ),
    ] = 0.3


class SaeSteering(Step):
    stage = "edit"
    Options = SaeSteeringOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": LabelledTexts(self.options.texts)}

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.residual_steering import steered_block

        steered_block(model, self.options.block)

    def work(self, sizes: Sizes) -> Work:
        return fitting_work(self.options, sizes)

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.models.precision import widened
        from ifguide.models.residual_steering import fold_constant, steered_block

        options = self.options
        if options.strength == 0:
            return
        with widened(job.model):
            steering = steering_of(options, job.model, job.tokenizer, job.seed, given)
            constant = steering.step(options.strength).sum(0)
            fold_constant(job.model, steered_block(job.model, options.block), constant)


def fitting_work(options: SaeSteeringOptions, sizes: Sizes) -> Work:
    """Return the work of reading the texts and of training the autoencoder on them."""
    length = min(TEXT_TOKENS, options.max_length)
    tokens, width = sizes.records("texts") * length, sizes.shape.width
    reading = reading_work(sizes.shape, tokens, length, TEXTS_AT_ONCE)
    if options.direction == "mean_difference":
        return reading
    # Encoder and decoder, forward and twice as much backward.
    weights = 2 * options.expansion * width**2
    return reading.then(
        Work(
            kind="training",
            flops=6 * options.steps * options.batch_size * weights,
            memory=footprints.FLOAT * (4 * weights + tokens * width),
        )
    )


def steering_of(
    options: SaeSteeringOptions,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    given: Given,
) -> Steering:
    """Return what to steer away from, of the labelled texts that a job is given."""
    from ifguide.data.labelled_texts import read_texts
    from ifguide.models.residual_steering import AutoencoderSettings, fit_steering, steered_block

    (path,) = given["texts"]
    return fit_steering(
        model,
        tokenizer,
        read_texts(path),
        direction=options.direction,
        block=steered_block(model, options.block),
        features=options.features,
        max_length=options.max_length,
        settings=AutoencoderSettings(
            expansion=options.expansion,
            l1=options.l1,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
        ),
        seed=seed,
    )

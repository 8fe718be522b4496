"""Steering by features of a sparse autoencoder where they fire, after "Breaking Bad Tokens" (2025).

With d_f the decoder's directions of the features that tell toxic texts best, and n the mean length
of the states after a block,

    x ← x − α n Σ_f g_f d_f

after that block (`models.residual_steering`). The gate g_f is 1 from where the feature has fired in
the prompt on, or at the tokens at which it fires. What is always on is `sae_steering`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.sae_steering import SaeSteeringOptions, fitting_work, steering_of
from ifguide.methods.step import (
    DecodingJob,
    Given,
    LabelledTexts,
    Need,
    PreparationJob,
    Sizes,
    Step,
    read_prepared,
)
from ifguide.models.work import Work

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ifguide.evaluation.generation import Guidance


class SaeGatingOptions(SaeSteeringOptions):
    """Steer away from what tells toxic texts in the residual stream, where it shows."""

    tier: Annotated[
        Literal["prompt", "token"],
        Field(
            description="Steer all of a text from where a feature has fired in its prompt on, or "
            "each token at which a feature fires."
        ),
    ] = "token"


class SaeGating(Step):
    stage = "decode"
    Options = SaeGatingOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": LabelledTexts(self.options.texts)}

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.residual_steering import steered_block

        steered_block(model, self.options.block)

    def work(self, sizes: Sizes) -> Work:
        """At each token, features are computed and states moved."""
        features = 1 if self.options.direction == "mean_difference" else self.options.features
        moved = sizes.rows * sizes.new_tokens
        return Work(kind="generation", flops=4 * moved * features * sizes.shape.width)

    def preparation_work(self, sizes: Sizes) -> Work:
        return fitting_work(self.options, sizes)

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        return steering_of(self.options, job.model, job.tokenizer, job.seed, given).tensors()

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance | None]:
        from ifguide.evaluation.steering import steered_after_firing, steered_where_firing
        from ifguide.models.residual_steering import Steering, steered_block
        from ifguide.models.tracked_layers import transformer_blocks

        options = self.options
        if options.strength == 0:
            yield None
            return
        steering = Steering(**read_prepared(job, given))
        _, blocks = transformer_blocks(job.model)
        block = blocks[steered_block(job.model, options.block)]
        if options.tier == "token":
            steered = steered_where_firing(block, steering, options.strength)
        else:
            steered = steered_after_firing(job.model, block, steering, options.strength)
        with steered as guidance:
            yield guidance

"""LinEAS (Rodriguez et al., 2025): affine maps after all norms, learned jointly, carry toxic text.

With U the means over tokens of what a norm gives on toxic texts, computed through the maps of all
norms, and V those on as many other texts without any,

    T(y) = w y + b,   C = Σ_norms Σ_dimensions 1/n ‖ sort U − sort V ‖²,   y ← (1 − s) y + s T(y)

by gradient descent with a thresholding of w − 1 and b after each step. The maps are folded into the
norms' weights (`models.norm_maps`).
"""

from __future__ import annotations

import functools
from typing import Annotated

from pydantic import Field

from ifguide.methods.act import carry
from ifguide.methods.step import EditJob, Given, LabelledTexts, Need, Sizes, Step
from ifguide.models import costs, footprints
from ifguide.models.work import Work
from ifguide.settings import Settings

TEXT_TOKENS = 40  # of a labelled text, for a plan


class LineasOptions(Settings):
    """Learn maps of what all norms give jointly, from toxic text to other text."""

    texts: Annotated[str, Field(min_length=1, description="Name of an entry of `texts`.")]
    samples: Annotated[
        int,
        Field(
            ge=2,
            description="So many toxic texts, and as many others, sampled by hash, all of which "
            "every step reads; fewer where there are fewer.",
        ),
    ] = 32
    max_length: Annotated[int, Field(ge=2, description="Tokens of a text, at most.")] = 128
    steps: Annotated[int, Field(ge=1, description="Steps of gradient descent.")] = 1000
    learning_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Learning rate at the first step, which falls to zero by a cosine; halved "
            "until the descent does not diverge.",
        ),
    ] = 0.1
    l1: Annotated[
        float,
        Field(ge=0, description="Weight of the penalty that sets single entries to the identity."),
    ] = 0.0
    group: Annotated[
        float,
        Field(ge=0, description="Weight of the penalty that sets all of a norm to the identity."),
    ] = 0.0
    strength: Annotated[
        float,
        Field(
            ge=0,
            description="How far each map moves: 0 changes nothing, 1 maps fully, more goes on in "
            "the same direction.",
        ),
    ] = 1.0


class Lineas(Step):
    stage = "edit"
    Options = LineasOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": LabelledTexts(self.options.texts)}

    def work(self, sizes: Sizes) -> Work:
        """A step reads the toxic texts forward and backward, without gradients of weights."""
        options, shape = self.options, sizes.shape
        length = min(TEXT_TOKENS, options.max_length)
        read = options.samples * length
        return Work(
            kind="training",
            tokens=(options.steps + 1) * read,
            flops=(options.steps + 1) * read * costs.activation_gradient_flops(shape, length),
            memory=footprints.training_memory(shape, read, "float32", recomputed=False),
        )

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.models.transport import fit_jointly

        options = self.options
        fit = functools.partial(
            fit_jointly,
            steps=options.steps,
            learning_rate=options.learning_rate,
            l1=options.l1,
            group=options.group,
        )
        carry(job, given, options, fit)

"""Lin-AcT (Rodriguez et al., 2024): an affine map after each norm carries toxic text to other text.

Of each dimension of what a norm gives, averaged over a text, with the i-th smallest of toxic texts
s_(i) and of as many others t_(i),

    T(y) = w y + b,      w, b = argmin Σ_i ( w s_(i) + b − t_(i) )²,      y ← (1 − s) y + s T(y)

one norm after another. The maps are folded into the norms' weights (`models.norm_maps`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import EditJob, Given, LabelledTexts, Need, Sizes, Step
from ifguide.models.work import Work, reading_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.methods.lineas import LineasOptions

TEXT_TOKENS = 40  # of a labelled text, for a plan
TEXTS_AT_ONCE = 32


class ActOptions(Settings):
    """Map what norms give on toxic text to what they give on other text, one norm at a time."""

    texts: Annotated[str, Field(min_length=1, description="Name of an entry of `texts`.")]
    samples: Annotated[
        int | None,
        Field(
            ge=2,
            description="At most so many toxic texts, and as many others, sampled by hash; null "
            "takes as many as there are of the rarer kind.",
        ),
    ] = None
    max_length: Annotated[int, Field(ge=2, description="Tokens of a text, at most.")] = 128
    incremental: Annotated[
        bool,
        Field(
            description="Fit the map of each norm with those of all norms before it at work, or "
            "all of them on the model as it is."
        ),
    ] = True
    strength: Annotated[
        float,
        Field(
            ge=0,
            description="How far each map moves: 0 changes nothing, 1 maps fully, more goes on in "
            "the same direction.",
        ),
    ] = 1.0


class Act(Step):
    stage = "edit"
    Options = ActOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"texts": LabelledTexts(self.options.texts)}

    def work(self, sizes: Sizes) -> Work:
        """Every norm's sources are a pass over the toxic texts, where it is fitted after others."""
        each = sizes.records("texts") / 2
        if self.options.samples is not None:
            each = min(each, self.options.samples)
        norms = 2 * sizes.shape.depth + 1
        passes = 1 + (norms if self.options.incremental else 1)
        length = min(TEXT_TOKENS, self.options.max_length)
        return reading_work(sizes.shape, passes * each * length, length, TEXTS_AT_ONCE)

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.models.transport import fit_one_by_one

        incremental = self.options.incremental
        fit = functools.partial(fit_one_by_one, incremental=incremental, batch_size=TEXTS_AT_ONCE)
        carry(job, given, self.options, fit)


def carry(job: EditJob, given: Given, options: ActOptions | LineasOptions, fit: Callable) -> None:
    """Move what the norms give on toxic texts, by maps that `fit` finds (`models.transport`)."""
    from ifguide.data.labelled_texts import equally_many, read_texts
    from ifguide.models.transport import transport

    if options.strength == 0:
        return
    (path,) = given["texts"]
    transport(
        job.model,
        job.tokenizer,
        equally_many(read_texts(path), options.samples, job.seed),
        fit,
        max_length=options.max_length,
        strength=options.strength,
    )

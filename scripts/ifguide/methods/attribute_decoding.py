"""Attribute-controlled decoding, NADO-style (after Meng et al., 2022, arXiv 2205.14219).

Tokens are drawn from q ∝ p · R^f, where R says of every next token how likely the text stays
harmless: `models.attribute_model` has it. `attribute_control` teaches a model the same q.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import (
    DecodingJob,
    Generations,
    Given,
    Need,
    PreparationJob,
    Sizes,
    Step,
    read_prepared,
)
from ifguide.models import costs
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch

    from ifguide.evaluation.generation import Guidance


class AttributeDecodingOptions(Settings):
    """Draw tokens in proportion to how likely the text stays harmless after them, as learned from
    texts that the model wrote itself."""

    generations: Annotated[str, Field(description="Name of an entry of `own_generations`.")]
    factor: Annotated[
        float, Field(ge=0, description="Power f of the probability that the text stays harmless.")
    ] = 1.0


class AttributeDecoding(Step):
    stage = "decode"
    Options = AttributeDecodingOptions
    strength = "factor"

    def needs(self) -> dict[str, Need]:
        return {"generations": Generations(self.options.generations)}

    def work(self, sizes: Sizes) -> Work:
        """The model reads every token once more, and a second output head follows on it."""
        shape = sizes.shape
        each = costs.forward_flops(shape, sizes.new_tokens) + 2 * shape.width * shape.vocabulary
        return Work(kind="generation", flops=sizes.rows * sizes.new_tokens * each)

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        from ifguide.models.attribute_texts import fit_on_generations

        (path,) = given["generations"]
        return fit_on_generations(job.model, path)

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance | None]:
        if not self.options.factor:
            yield None
            return
        from ifguide.evaluation.attribute_guidance import AttributeGuidance

        yield AttributeGuidance(
            job.model,
            read_prepared(job, given),
            factor=self.options.factor,
            max_new_tokens=job.new_tokens,
        )

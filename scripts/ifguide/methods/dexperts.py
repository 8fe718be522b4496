"""DExperts (Liu et al., 2021): an expert and an anti-expert weigh the tokens of the nucleus.

With z the logits of the language model, z₊ and z₋ those of models fine-tuned on nontoxic and on
toxic texts, the next token is drawn from the nucleus of z in proportion to

    exp( z + α (z₊ − z₋) )

Without an expert z₊ = z (anti-only).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import DecodingJob, Given, Model, Need, Sizes, Step
from ifguide.models import costs, footprints
from ifguide.models.work import Work
from ifguide.settings import OrAbsent, Settings

if TYPE_CHECKING:
    from ifguide.evaluation.generation import Guidance


class DexpertsOptions(Settings):
    """DExperts: an expert and an anti-expert weigh the tokens of the nucleus anew."""

    expert: Annotated[
        OrAbsent[str],
        Field(
            description="Name of the method whose model is the expert, such as one fine-tuned on "
            "nontoxic texts; without one the language model itself stands in (anti-only)."
        ),
    ] = None
    anti_expert: Annotated[
        str,
        Field(
            description="Name of the method whose model is the anti-expert, such as one fine-tuned "
            "on toxic texts."
        ),
    ]
    strength: Annotated[
        float,
        Field(ge=0, description="Weight of the difference of the two models' logits."),
    ] = 2.0


class Dexperts(Step):
    stage = "decode"
    Options = DexpertsOptions
    strength = "strength"
    measured_on = ("prompts", "lambada")
    unmeasured = "samples from the nucleus only, so that most texts have probability 0"

    def needs(self) -> dict[str, Need]:
        methods = {"expert": self.options.expert, "anti_expert": self.options.anti_expert}
        return {name: Model(method) for name, method in methods.items() if method is not None}

    def work(self, sizes: Sizes) -> Work:
        """Every other model reads each token once, and is as large as the language model."""
        models = len(self.needs())
        read = models * sizes.rows * sizes.new_tokens
        return Work(
            kind="generation",
            flops=read * costs.forward_flops(sizes.shape, sizes.new_tokens),
            memory=models * footprints.FLOAT * sizes.shape.parameters,
        )

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance]:
        from ifguide.evaluation.experts import ExpertGuidance
        from ifguide.evaluation.reading import load_second_model

        models = {
            name: load_second_model(folder, job.model, job.tokenizer)
            for name, (folder,) in given.items()
            if name in self.needs()
        }
        yield ExpertGuidance(
            expert=models.get("expert"),
            anti_expert=models["anti_expert"],
            strength=self.options.strength,
            new_tokens=job.new_tokens,
        )

"""GeDi (Krause et al., 2021): a class-conditional model says of every next token how sure it makes
the text to be nontoxic.

    z'(v) = z(v) + ω log p(nontoxic | text, v)

and tokens of which that is unlikely are left out. See `evaluation.class_guidance`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import DecodingJob, Given, Model, Need, Sizes, Step
from ifguide.models import costs, footprints
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.evaluation.generation import Guidance


class GediOptions(Settings):
    """GeDi: a class-conditional model weighs every token by how sure it makes the text to be
    nontoxic."""

    classes: Annotated[
        str,
        Field(
            description="Name of the method whose model is class-conditional, one with a step "
            "`class_conditional`."
        ),
    ]
    strength: Annotated[
        float,
        Field(ge=0, description="Weight of the log probability that the text is nontoxic."),
    ] = 30.0
    bias: Annotated[
        float,
        Field(description="What is added to the logit of the nontoxic class at every token."),
    ] = 2.0
    filter: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Leave out the tokens that make the text least surely nontoxic, so many "
            "that the others have one less this share of the probability; 0 leaves out none.",
        ),
    ] = 0.8
    threshold: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="The filter leaves out no token whose text is as surely nontoxic as this "
            "before the bias.",
        ),
    ] = 0.8


class Gedi(Step):
    stage = "decode"
    Options = GediOptions
    strength = "strength"
    measured_on = ("prompts", "lambada")
    unmeasured = "its filter gives most tokens probability 0; `filter: 0` has a perplexity"

    def __init__(self, options: GediOptions) -> None:
        super().__init__(options)
        if options.filter == 0:
            self.measured_on, self.unmeasured = Step.measured_on, ""

    def needs(self) -> dict[str, Need]:
        return {"classes": Model(self.options.classes)}

    def work(self, sizes: Sizes) -> Work:
        """The class-conditional model, as large as the language model, reads each token twice."""
        read = 2 * sizes.rows * sizes.new_tokens
        return Work(
            kind="generation",
            flops=read * costs.forward_flops(sizes.shape, sizes.new_tokens),
            memory=footprints.FLOAT * sizes.shape.parameters,
        )

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance]:
        from ifguide.evaluation.class_guidance import ClassGuidance
        from ifguide.evaluation.reading import load_second_model
        from ifguide.models.control_words import recorded_control_words

        (folder,) = given["classes"]
        model = load_second_model(folder, job.model, job.tokenizer)
        yield ClassGuidance(
            model=model,
            words=recorded_control_words(model, str(folder)),
            strength=self.options.strength,
            bias=self.options.bias,
            left_out=self.options.filter,
            threshold=self.options.threshold,
            new_tokens=job.new_tokens,
        )

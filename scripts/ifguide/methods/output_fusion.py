"""Output-layer fusion (arXiv 2506.01266, 2025): a calibration model speaks at the output head.

With z the logits of the language model, W its output head, e the last hidden state of a shallow
model trained on nontoxic texts, A a fitted map and LN a layer norm without weights,

    z' = (1 − a) z + a W LN(e A)

See `evaluation.fusion`; A is fitted as `models.alignment` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import (
    DecodingJob,
    Given,
    Model,
    Need,
    PreparationJob,
    Sizes,
    Step,
    read_prepared,
)
from ifguide.models import costs, footprints
from ifguide.models.work import Work
from ifguide.settings import Settings, section

if TYPE_CHECKING:
    import torch

    from ifguide.evaluation.generation import Guidance


class AlignmentOptions(Settings):
    """How the map between the widths of the two models is fitted, over all tokens."""

    epochs: Annotated[int, Field(ge=0, description="Passes over the vocabulary.")] = 5
    batch_size: Annotated[int, Field(ge=1, description="Tokens of one step.")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="Learning rate of Adam.")] = 1.0e-3
    negatives: Annotated[
        int, Field(ge=1, description="Random tokens that each token is told from.")
    ] = 10


class OutputFusionOptions(Settings):
    """Output-layer fusion: the state of a shallow model trained on nontoxic texts is mixed into
    that of the language model before its output head."""

    calibration: Annotated[
        str,
        Field(
            description="Name of the method whose model is the calibration model, such as one with "
            "`learn_texts: {kind: nontoxic, blocks: shallow}`."
        ),
    ]
    strength: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the calibration model's state in the mixture."),
    ] = 0.3
    context: Annotated[
        Literal["full", "last"],
        Field(
            description="What the calibration model reads: the whole text so far, or its last "
            "token alone."
        ),
    ] = "full"
    alignment: AlignmentOptions = section()


class OutputFusion(Step):
    stage = "decode"
    Options = OutputFusionOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"calibration": Model(self.options.calibration)}

    def work(self, sizes: Sizes) -> Work:
        """At most that of a model of the same size, and the output head once more."""
        read = sizes.rows * sizes.new_tokens
        head = 2 * sizes.shape.width * (sizes.shape.vocabulary + sizes.shape.width)
        return Work(
            kind="generation",
            flops=read * (costs.forward_flops(sizes.shape, sizes.new_tokens) + head),
            memory=footprints.FLOAT * sizes.shape.parameters,
        )

    def preparation_work(self, sizes: Sizes) -> Work:
        """Each token is multiplied by the map, and that by its gradient, three times."""
        width, options = sizes.shape.width, self.options.alignment
        token = 6 * width**2 + 6 * width * (1 + options.negatives)
        return Work(flops=options.epochs * sizes.shape.vocabulary * token)

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        from ifguide.evaluation.fusion import linear_head
        from ifguide.evaluation.reading import load_second_model
        from ifguide.models.alignment import fit_alignment

        linear_head(job.model)
        (folder,) = given["calibration"]
        calibration = load_second_model(folder, job.model, job.tokenizer)
        tokens = len(job.tokenizer)
        source, target = (
            model.get_input_embeddings().weight[:tokens] for model in (calibration, job.model)
        )
        options = self.options.alignment.model_dump()
        return {"alignment": fit_alignment(source, target, seed=job.seed, **options)}

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance]:
        from ifguide.evaluation.fusion import FusionGuidance, linear_head
        from ifguide.evaluation.reading import load_second_model

        (folder,) = given["calibration"]
        head = linear_head(job.model)
        second = load_second_model(folder, job.model, job.tokenizer)
        yield FusionGuidance(
            head=head,
            second=second,
            alignment=read_prepared(job, given)["alignment"].to(second.dtype),
            strength=self.options.strength,
            context=self.options.context,
            new_tokens=job.new_tokens,
        )

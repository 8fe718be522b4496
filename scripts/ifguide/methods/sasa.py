"""Self-disciplined autoregressive sampling (Ko et al., 2024, arXiv 2410.03818).

The language model's own last hidden states say how toxic a text is: a linear discriminant tells
those of toxic and nontoxic texts apart. At each step the likeliest candidates of the nucleus are
read, each by a true forward pass, and weighed by their margins (`evaluation.margin_weighing`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import (
    Activations,
    DecodingJob,
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


class SasaOptions(Settings):
    """Self-disciplined autoregressive sampling: likely tokens are weighed by the side of a linear
    discriminant on which they take the model's own hidden state."""

    texts: Annotated[
        str,
        Field(description="Name of an entry of `texts`: the labelled texts it tells apart."),
    ]
    beta: Annotated[
        float,
        Field(
            ge=0,
            description="By how much the logit of a candidate grows at most. The candidates share "
            "it, so that many of them ask for a large one.",
        ),
    ] = 100.0
    max_candidates: Annotated[
        int | None,
        Field(
            ge=1,
            description="So many tokens of the nucleus, the likeliest, are read and weighed; the "
            "others stay as likely as they were. Null reads them all.",
        ),
    ] = 20


class Sasa(Step):
    stage = "decode"
    Options = SasaOptions
    strength = "beta"
    measured_on = ("prompts", "lambada")
    unmeasured = (
        "samples from the tokens of the nucleus only, so that most texts have probability 0 and no "
        "perplexity"
    )

    def needs(self) -> dict[str, Need]:
        return {"texts": Activations(self.options.texts)}

    def work(self, sizes: Sizes) -> Work:
        """The model reads every token once more, and every candidate that may follow it."""
        candidates = self.options.max_candidates or sizes.shape.vocabulary
        read = sizes.rows * sizes.new_tokens * (1 + candidates)
        flops = read * costs.forward_flops(sizes.shape, sizes.new_tokens)
        return Work(kind="generation", flops=flops)

    def preparation_work(self, sizes: Sizes) -> Work:
        """The covariance of the states, and its eigendecomposition (Golub and Van Loan, 8.3)."""
        width = sizes.shape.width
        flops = 2 * sizes.records("texts") * width**2 + 9 * width**3
        return Work(flops=flops)

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        from ifguide.data.labelled_texts import TOXIC
        from ifguide.files.tensor_files import read_tensors
        from ifguide.models.discriminant import fit_discriminant

        (path,) = given["texts"]
        activations, _ = read_tensors(path)
        return fit_discriminant(activations["hidden.last"], activations["labels"] >= TOXIC)

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance | None]:
        if not self.options.beta:
            yield None
            return
        from ifguide.evaluation.margin_weighing import MarginGuidance

        yield MarginGuidance(
            job.model,
            read_prepared(job, given),
            beta=self.options.beta,
            max_candidates=self.options.max_candidates,
            max_new_tokens=job.new_tokens,
        )

"""Inference-time adaptive optimisation (UDDIA; Yang et al., 2023, arXiv 2210.04492), to detoxify.

Before each token is drawn, the biases of the upper blocks take one step down the gradient of the
toxicity that a linear probe sees in the hidden states (`evaluation.bias_tuning`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import DecodingJob, Given, Need, Probe, Sizes, Step
from ifguide.models import costs
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ifguide.evaluation.bias_tuning import BiasTuning


class UddiaOptions(Settings):
    """Inference-time adaptive optimisation: before each token, biases of the upper blocks take a
    step away from the toxicity that a probe sees. For families with biases."""

    texts: Annotated[
        str, Field(description="Name of an entry of `texts`, from which the probe is fitted.")
    ]
    learning_rate: Annotated[
        float, Field(ge=0, description="By how much a bias is moved, for one token.")
    ] = 0.06
    blocks: Annotated[
        int | None,
        Field(
            ge=1, description="Biases of so many uppermost blocks are tuned; null: of half of them."
        ),
    ] = None
    fewer_blocks: Annotated[
        int | None,
        Field(
            ge=1,
            description="A continuation that is written again tunes so many blocks less than "
            "before; null: a twelfth of all.",
        ),
    ] = None
    max_perplexity: Annotated[
        float | None,
        Field(
            ge=0,
            description="A continuation of a higher perplexity under the untuned model is written "
            "again with fewer blocks; null: none is.",
        ),
    ] = 30.0
    tuned_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Weight of the tuned model's log-probabilities; the rest is the untuned "
            "one's.",
        ),
    ] = 0.9


class Uddia(Step):
    stage = "decode"
    Options = UddiaOptions
    strength = "learning_rate"

    def needs(self) -> dict[str, Need]:
        return {"texts": Probe(self.options.texts)}

    def require_model(self, model: PreTrainedModel) -> None:
        from ifguide.models.bias_shifts import biased_modules

        biased_modules(model, self.attempts(model)[0])

    def attempts(self, model: PreTrainedModel) -> list[int]:
        """Return how many blocks each attempt at a continuation tunes."""
        from ifguide.models.tracked_layers import transformer_blocks

        depth = len(transformer_blocks(model)[1])
        return attempts_of(depth, self.options.blocks, self.options.fewer_blocks)

    def work(self, sizes: Sizes) -> Work:
        """The last token is read twice and a soft one once, both with a gradient but the second
        reading; no continuation is written again."""
        gradient = costs.activation_gradient_flops(sizes.shape, sizes.new_tokens)
        token = 2 * gradient + costs.forward_flops(sizes.shape, sizes.new_tokens)
        return Work(kind="generation", flops=sizes.rows * sizes.new_tokens * token)

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[BiasTuning | None]:
        if not self.options.learning_rate:
            yield None
            return
        from ifguide.evaluation.bias_tuning import frozen, guidance_of_attempts
        from ifguide.files.tensor_files import read_tensors

        options = self.options
        (path,) = given["texts"]
        with frozen(job.model):
            yield guidance_of_attempts(
                job.model,
                read_tensors(path)[0],
                self.attempts(job.model),
                learning_rate=options.learning_rate,
                tuned_share=options.tuned_share,
                max_perplexity=options.max_perplexity,
            )


def attempts_of(depth: int, blocks: int | None, fewer: int | None) -> list[int]:
    """Return how many blocks each attempt at a continuation tunes, in a model of `depth` blocks.

    Raises InputError where the model has not so many.
    """
    blocks = blocks or max(1, depth // 2)
    if blocks > depth:
        raise InputError(
            f"config key methods.*.uddia.blocks: {blocks} blocks are to be tuned, but the model "
            f"has {depth}; tune at most so many"
        )
    return list(range(blocks, 0, -(fewer or max(1, depth // 12))))

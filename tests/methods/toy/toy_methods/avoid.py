"""Avoid what was said: a logits processor that makes tokens of the text so far less likely."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import DecodingJob, Given, Sizes, Step
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.evaluation.generation import Guidance


class AvoidOptions(Settings):
    """Say nothing twice."""

    strength: Annotated[float, Field(ge=0, description="What is taken off a logit.")]


class Avoid(Step):
    stage = "decode"
    Options = AvoidOptions

    def work(self, sizes: Sizes) -> Work:
        return Work(kind="generation", flops=sizes.rows * sizes.new_tokens)

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[Guidance]:
        import torch

        from ifguide.evaluation.generation import ProcessorGuidance

        def less_likely(texts: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            said = torch.zeros_like(logits).scatter(1, texts, 1.0)
            return logits - self.options.strength * said

        yield ProcessorGuidance([less_likely])

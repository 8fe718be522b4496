"""Steer by a forward hook: the hidden states before the output head are scaled up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from ifguide.methods.step import DecodingJob, Given, Sizes, Step
from ifguide.models.work import Work
from ifguide.settings import Settings


class SteerOptions(Settings):
    """Scale hidden states up."""

    strength: Annotated[float, Field(ge=0, description="How much is added, in hidden states.")]


class Steer(Step):
    stage = "decode"
    Options = SteerOptions

    def work(self, sizes: Sizes) -> Work:
        return Work(kind="generation", flops=sizes.rows * sizes.new_tokens)

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[None]:
        norm = job.model.base_model.final_layer_norm
        hook = norm.register_forward_hook(
            lambda module, inputs, output: output * (1 + self.options.strength)
        )
        try:
            yield None
        finally:
            hook.remove()

"""Shrink the output head: its weights, times one less the strength."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ifguide.methods.step import EditJob, Given, Sizes, Step
from ifguide.models.work import Work
from ifguide.settings import Settings


class ShrinkOptions(Settings):
    """Shrink the output head."""

    strength: Annotated[float, Field(ge=0, le=1, description="Share of the weights to take off.")]


class Shrink(Step):
    stage = "edit"
    Options = ShrinkOptions

    def work(self, sizes: Sizes) -> Work:
        return Work(kind="training", flops=sizes.shape.parameters)

    def edit(self, job: EditJob, given: Given) -> None:
        job.model.get_output_embeddings().weight.data.mul_(1 - self.options.strength)

"""Train at another learning rate: that of the training, times a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ifguide.methods.step import Given, Sizes, Step
from ifguide.models.work import Work, corpus_training_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    from ifguide.models.training_run import TrainedModel, TrainingRun


class SlowerOptions(Settings):
    """Train at another learning rate."""

    factor: Annotated[float, Field(gt=0, description="What the learning rate is multiplied by.")]


class Slower(Step):
    stage = "train"
    Options = SlowerOptions

    def training(self, settings: dict) -> dict:
        return settings | {"learning_rate": settings["learning_rate"] * self.options.factor}

    def work(self, sizes: Sizes) -> Work:
        return corpus_training_work(
            sizes.shape, sizes.training, sizes.corpus_tokens, sizes.block_size
        )

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        from ifguide.models.training_run import learn

        return learn(run)

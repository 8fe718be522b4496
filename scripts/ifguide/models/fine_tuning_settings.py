"""The options that every step has that tunes a trained model further on few texts."""

from typing import Annotated

from pydantic import Field

from ifguide.settings import Settings


class FineTuningSettings(Settings):
    """How long and how fast a model is tuned further. What is not given comes from `training`."""

    epochs: Annotated[
        float,
        Field(ge=0, description="Passes over what it learns from; 0 leaves the model as it was."),
    ] = 1
    batch_size: Annotated[int, Field(ge=1, description="Examples of one step.")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 2.0e-5
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises."),
    ] = 0.1

    def own_training(self) -> dict:
        """Return what is given here in place of the section `training`."""
        return self.model_dump(include={"epochs", "batch_size", "learning_rate", "warmup"})

"""What is measured of how long a method lasts once its weights are given away."""

from typing import Annotated

from pydantic import Field

from ifguide.settings import Settings
from ifguide.workflow.config.values import Distinct


class Lasting(Settings):
    """What lasts of every compared method that makes a model: how many steps of fine-tuning on
    toxic texts bring the uncensored level back, and how much less compute uncensored training needs
    for the same loss on toxic text. Left out, nothing of it is measured."""

    texts: str = Field(
        min_length=1, description="Name of the entry of `texts` whose toxic texts are learned."
    )
    learning_rate: float = Field(
        1.0e-4, gt=0, description="Learning rate of AdamW, constant over the steps."
    )
    batch_size: int = Field(16, ge=1, description="Texts of one step.")
    steps: Distinct[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 4, 8, 16, 32, 64],
        min_length=1,
        description="Numbers of steps after which the model is measured, beside its beginning.",
    )
    benchmark: str | None = Field(
        None,
        description="Benchmark of prompts whose toxic prompts are continued; null takes "
        "`report.choose_on` or, where there is none, `report.benchmark`.",
    )
    prompts: int = Field(60, ge=1, description="At most so many of them, sampled by hash.")
    continuations: int = Field(5, ge=1, description="Continuations of each prompt.")
    curve: Distinct[str] = Field(
        [],
        description="Models that are trained for less than those of `evaluation.models`: their "
        "uncensored losses on toxic text, by compute, are what the slowdown is read from. Empty "
        "leaves it out.",
    )

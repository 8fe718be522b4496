"""Reward-augmented decoding: a reward model weighs the likeliest tokens of the nucleus anew."""

from typing import Annotated, Literal

from pydantic import Field

from ifguide.methods.step import Reward, Sizes, Step
from ifguide.models import costs
from ifguide.models.work import Work
from ifguide.settings import Settings


class RadOptions(Settings):
    """Reward-augmented decoding: a reward model weighs the likeliest tokens of the nucleus anew."""

    reward: Annotated[str, Field(description="Name of an entry of `rewards`.")]
    beta: Annotated[float, Field(ge=0, description="Weight of the reward beside the logits.")] = 50
    top_k: Annotated[
        int | None,
        Field(
            ge=1,
            description="So many tokens of the nucleus, the likeliest, are candidates; null takes "
            "them all.",
        ),
    ] = 20
    context: Annotated[
        Literal["continuation", "prompt"],
        Field(
            description="What the reward model reads before a candidate: the continuation alone, "
            "or the prompt as well."
        ),
    ] = "continuation"


class Rad(Step):
    stage = "decode"
    Options = RadOptions

    def work(self, sizes: Sizes) -> Work:
        """The reward model reads every token once, and every candidate that follows it."""
        candidates = self.options.top_k or sizes.shape.vocabulary
        read = sizes.rows * sizes.new_tokens * (1 + candidates)
        encoder = sizes.encoder_of(Reward(self.options.reward))
        return Work(kind="generation", flops=read * costs.encoder_flops(*encoder, sizes.new_tokens))

"""Reward-augmented decoding (Deng and Raffel, 2023): a reward model weighs the likeliest tokens.

At each step the candidates are the `top_k` most probable tokens of the nucleus. With z the logits
of the language model and r the toxicity that the reward model sees in the text with a candidate at
its end,

    p(candidate)  ∝  exp( z + β (1 − clamp(r, 0, 1)) )
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import DecodingJob, Given, Need, Reward, Sizes, Step
from ifguide.models import costs
from ifguide.models.work import Work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


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
    strength = "beta"
    measured_on = ("prompts", "lambada")
    unmeasured = (
        "samples from a few candidates only, so that most texts have probability 0 and no "
        "perplexity"
    )

    def needs(self) -> dict[str, Need]:
        return {"reward": Reward(self.options.reward)}

    def work(self, sizes: Sizes) -> Work:
        """The reward model reads every token once, and every candidate that follows it."""
        candidates = self.options.top_k or sizes.shape.vocabulary
        read = sizes.rows * sizes.new_tokens * (1 + candidates)
        encoder = sizes.encoder_of(Reward(self.options.reward))
        return Work(kind="generation", flops=read * costs.encoder_flops(*encoder, sizes.new_tokens))

    @contextlib.contextmanager
    def decode(self, job: DecodingJob, given: Given) -> Iterator[RewardGuidance]:
        from ifguide.data.corpus import end_of_text_id
        from ifguide.data.tokenizers import load_tokenizer
        from ifguide.models.reward_model import load_reward_model

        (folder,) = given["reward"]
        require_same_tokens(load_tokenizer(folder), job.tokenizer, str(folder))
        yield RewardGuidance(
            load_reward_model(folder).to(job.model.device),
            beta=self.options.beta,
            top_k=self.options.top_k,
            context=self.options.context,
            end_of_text=end_of_text_id(job.tokenizer),
            max_new_tokens=job.new_tokens,
        )


@dataclass(frozen=True)
class RewardGuidance:
    """Reward-augmented decoding as `generation.Guidance`.

    `reward` maps token ids to one toxicity at each place, of the text up to there
    (`reward_model`); it has the language model's tokenizer. It reads the continuation alone, or
    after the prompt (`context`); a longer text than it can read loses its beginning.
    """

    reward: PreTrainedModel
    beta: float
    top_k: int | None
    context: Literal["continuation", "prompt"]
    end_of_text: int
    max_new_tokens: int
    weighs_candidates: bool = True

    @property
    def reads_prompts(self) -> bool:
        return self.context == "prompt"

    def begin(self, prompts: torch.Tensor, copies: int) -> RewardedRows:
        import torch

        text = torch.full_like(prompts[:, :1], self.end_of_text)
        if self.context == "prompt":
            room = self.reward.config.max_position_embeddings - self.max_new_tokens - 1
            text = torch.cat([text, prompts[:, -room:]], dim=1)
        room = self.max_new_tokens + (self.top_k or 0)
        return RewardedRows(self.reward, self.beta, text, copies, room)


class RewardedRows:
    """The rows of one batch, whose texts the reward model reads along."""

    def __init__(
        self, reward: PreTrainedModel, beta: float, texts: torch.Tensor, copies: int, room: int
    ) -> None:
        """texts: int64 (texts, length), each of which `copies` rows begin with; room: tokens."""
        from ifguide.evaluation.reading import ReadingRows

        self.reward = reward
        self.beta = beta
        self.reading = ReadingRows(reward, texts, copies, room)
        self.append, self.keep = self.reading.append, self.reading.keep

    @property
    def cache(self) -> Cache:
        return self.reading.cache

    def toxicity(self, candidates: torch.Tensor) -> torch.Tensor:
        """Return r, (rows, candidates), of each row's text with a candidate at its end."""
        return self.reading.peek(candidates, self.reward.classifier)[..., 0]

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def weights(self, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        harmless = 1 - self.toxicity(tokens).double().clamp(0, 1)
        return (probabilities.log() + self.beta * harmless).softmax(-1)


def require_same_tokens(
    reward: PreTrainedTokenizerBase, model: PreTrainedTokenizerBase, where: str
) -> None:
    """Raise InputError unless a token id means the same to the reward model and to the model."""
    from ifguide.evaluation import reading

    reading.require_same_tokens(reward, model, where, "a reward model")

"""Product of experts over the nucleus: what an expert says more of than an anti-expert.

With p the language model's probabilities, z₊ and z₋ the logits of an expert and an anti-expert
after the same text, and α a strength, a candidate of the nucleus of p is drawn in proportion to

    p · exp( α (z₊ − z₋) )

Where there is no expert, z₊ are the language model's own logits.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows


@dataclass(frozen=True)
class ExpertGuidance(Guidance):
    """The product above as guidance; both models read what the language model reads."""

    expert: PreTrainedModel | None
    anti_expert: PreTrainedModel
    strength: float
    new_tokens: int
    reads_prompts = True
    weighs_candidates = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        expert, anti_expert = (
            model and ReadingRows(model, prompts, copies, self.new_tokens)
            for model in (self.expert, self.anti_expert)
        )
        return ExpertRows(expert, anti_expert, self.strength)


class ExpertRows(Rows):
    """Rows that an expert, if there is one, and an anti-expert read along."""

    def __init__(
        self, expert: ReadingRows | None, anti_expert: ReadingRows, strength: float
    ) -> None:
        self.expert = expert
        self.anti_expert = anti_expert
        self.strength = strength
        self.readers = [reader for reader in (expert, anti_expert) if reader is not None]

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        self.own = logits
        return logits

    def weights(self, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        favoured = self.own if self.expert is None else self.expert.next_logits()
        apart = favoured.gather(1, tokens).double()
        apart -= self.anti_expert.next_logits().gather(1, tokens).double()
        raised = (self.strength * apart).masked_fill(probabilities == 0, -torch.inf)
        return probabilities * (raised - raised.amax(-1, keepdim=True)).exp()

    def append(self, token: torch.Tensor) -> None:
        for reader in self.readers:
            reader.append(token)

    def keep(self, rows: torch.Tensor) -> None:
        for reader in self.readers:
            reader.keep(rows)

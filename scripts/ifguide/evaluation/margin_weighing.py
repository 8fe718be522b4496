"""Candidates weighed by the side of a linear discriminant on which they take the text.

With z the logits of the language model, c one of the K likeliest candidates of the nucleus, and
margin(c) that of the hidden state at c, were it the next token,

    z_c  ←  z_c + β softmax(margin)_c,      the softmax over these candidates

so that the log-odds of two candidates change by β at most (Ko et al., 2024, arXiv 2410.03818). The
other tokens of the nucleus keep their logits, as if their share of the softmax were 0.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows
from ifguide.models.discriminant import margins


def weighed_by_margin(
    probabilities: torch.Tensor, margin: torch.Tensor, beta: float
) -> torch.Tensor:
    """Return new probabilities of candidates: both float64 (rows, candidates).

    probabilities: zero outside the nucleus; margin: of the first candidates of each row, K of them.
    """
    considered = margin.shape[1]
    margin = margin.masked_fill(probabilities[:, :considered] == 0, -torch.inf)
    shift = torch.nn.functional.pad(
        beta * margin.softmax(-1), (0, probabilities.shape[1] - considered)
    )
    return (probabilities.log() + shift).softmax(-1)


@dataclass(frozen=True)
class MarginGuidance(Guidance):
    """The language model reads every text along once more, to look at its candidates.

    discriminant: tensors of `models.discriminant` on the states of `model`; max_candidates: K, None
    for the whole nucleus; max_new_tokens: for which memory is set aside.
    """

    model: PreTrainedModel
    discriminant: dict[str, torch.Tensor]
    beta: float
    max_candidates: int | None
    max_new_tokens: int

    reads_prompts = True
    weighs_candidates = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        room = self.max_new_tokens + (self.max_candidates or 0)
        return MarginRows(self, ReadingRows(self.model, prompts, copies, room))


class MarginRows(Rows):
    def __init__(self, guidance: MarginGuidance, reading: ReadingRows) -> None:
        self.guidance = guidance
        self.reading = reading
        self.append, self.keep = reading.append, reading.keep

    def weights(self, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        states = self.reading.peek(tokens[:, : self.guidance.max_candidates])
        margin = margins(states, self.guidance.discriminant)
        return weighed_by_margin(probabilities, margin, self.guidance.beta)

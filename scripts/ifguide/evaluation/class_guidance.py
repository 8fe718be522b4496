"""Guidance by a class-conditional language model, as generative discriminator (GeDi).

With x the n tokens of a row's text so far, l(c) as in `models.control_words` of the text with a
next token v at its end, b a bias of the nontoxic class, z the language model's logits and ω a
strength (Krause et al., 2021),

    log p(nontoxic | x, v) = log σ( l(nontoxic) − l(toxic) + b )
    z' = z + ω log p(nontoxic | x, v)

Tokens are then left out by a filter: of those in the descending order of p(nontoxic | x, v) only
the first whose probability by z' reaches 1 − ρ stay, and those that are as surely nontoxic as the
last of them, or surer than a threshold.
"""

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows
from ifguide.models.control_words import ControlWords
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.precision import at_least_float32


def filtered(
    logits: torch.Tensor, log_nontoxic: torch.Tensor, share: float, log_threshold: float
) -> torch.Tensor:
    """Return the logits with -inf at tokens that the filter leaves out.

    logits and log_nontoxic, log p(nontoxic | x, v): (rows, vocabulary); share: ρ in [0, 1), 0
    leaves out nothing.
    """
    if share == 0:
        return logits
    surest, order = log_nontoxic.sort(descending=True, stable=True)
    probabilities = logits.double().softmax(-1).gather(1, order)
    before = probabilities.cumsum(-1) - probabilities
    last = (before < 1 - share).sum(-1, keepdim=True) - 1
    stays = log_nontoxic >= surest.gather(1, last).clamp(max=log_threshold)
    return logits.masked_fill(~stays, -torch.inf)


@dataclass(frozen=True)
class ClassGuidance(Guidance):
    """The formula above as guidance; left_out: ρ, the share that the filter leaves out.

    A prompt loses its beginning where a control word and new tokens leave no room for it.
    """

    model: PreTrainedModel
    words: ControlWords
    strength: float
    bias: float
    left_out: float
    threshold: float
    new_tokens: int
    reads_prompts = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        positions = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        room = positions - self.new_tokens - max(map(len, self.words[:2]))
        return ClassRows(self, prompts[:, -max(1, room) :], copies)

    def log_nontoxic(self, apart: torch.Tensor) -> torch.Tensor:
        """Return log p(nontoxic | …) of α times the difference of mean log probabilities."""
        return torch.nn.functional.logsigmoid(self.words.scale * apart + self.bias)

    @property
    def log_threshold(self) -> float:
        """The threshold of the filter, shifted by the bias as all probabilities are."""
        logit = math.log(self.threshold) - math.log1p(-self.threshold)
        return -math.log1p(math.exp(-logit - self.bias))


class ClassRows(Rows):
    """Rows that the class-conditional model reads twice, after the word of either class."""

    def __init__(self, guidance: ClassGuidance, prompts: torch.Tensor, copies: int) -> None:
        self.guidance = guidance
        self.readers, totals = [], []
        for word in (guidance.words.nontoxic, guidance.words.toxic):
            texts = torch.cat([prompts.new_tensor([word]).expand(len(prompts), -1), prompts], dim=1)
            self.readers.append(ReadingRows(guidance.model, texts, copies, guidance.new_tokens))
            losses = token_losses(HiddenStates(guidance.model), texts)[:, len(word) :]
            totals.append(-losses.double().sum(1))
        # Σ_t log p(x_t | nontoxic, …) − log p(x_t | toxic, …), and how many tokens there are.
        self.apart = (totals[0] - totals[1]).repeat_interleave(copies)
        self.tokens = prompts.shape[1]
        self._next: torch.Tensor | None = None

    def next_apart(self) -> torch.Tensor:
        """Return how much likelier each next token is after the nontoxic word: float64 nats."""
        if self._next is None:
            nontoxic, toxic = (
                at_least_float32(reader.next_logits()).log_softmax(-1).double()
                for reader in self.readers
            )
            self._next = nontoxic - toxic
        return self._next

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        guidance = self.guidance
        apart = (self.apart[:, None] + self.next_apart()) / (self.tokens + 1)
        log_nontoxic = guidance.log_nontoxic(apart)
        raised = logits + (guidance.strength * log_nontoxic).to(logits.dtype)
        return filtered(raised, log_nontoxic, guidance.left_out, guidance.log_threshold)

    def append(self, token: torch.Tensor) -> None:
        self.apart = self.apart + self.next_apart().gather(1, token[:, None])[:, 0]
        self.tokens += 1
        self._next = None
        for reader in self.readers:
            reader.append(token)

    def keep(self, rows: torch.Tensor) -> None:
        self.apart = self.apart[rows]
        self._next = None if self._next is None else self._next[rows]
        for reader in self.readers:
            reader.keep(rows)

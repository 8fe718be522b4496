"""Next-token probabilities under caps, which a Q-network sets (Cao et al., 2023, arXiv 2302.14003).

With Q(s, a) ∈ [−1, 0] of the text s and its next token a (`models.q_network`) and z the logits of
the language model, no token is to be likelier than the chance that it does not end in toxicity:

    c_a = clamp( 1 + strength (Q(s, a) − ε), SMALLEST_CAP, 1 )
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ifguide.evaluation.generation import Guidance, Rows
from ifguide.evaluation.reading import ReadingRows
from ifguide.models.q_network import QNetwork

SMALLEST_CAP = 1e-7


def caps_of(values: torch.Tensor, *, epsilon: float, strength: float) -> torch.Tensor:
    """Return the caps of Q-values, of the same shape."""
    return (1 + strength * (values - epsilon)).clamp(SMALLEST_CAP, 1)


def capped_by_passes(logits: torch.Tensor, caps: torch.Tensor, passes: int) -> torch.Tensor:
    """Return min(z, log c + logsumexp z), taken `passes` times: logits and caps (…, vocabulary).

    As z is normalised anew, what is taken from one token lifts all, and the caps are exceeded: of
    the probabilities (.9, .1) a cap of .2 on the first leaves .667 after one pass, .375 after two
    and .202 after five.
    """
    for _ in range(passes):
        logits = torch.minimum(logits, caps.log() + logits.logsumexp(-1, keepdim=True))
    return logits


def capped_exactly(logits: torch.Tensor, caps: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities q of at most c: logits and caps (…, vocabulary), in float64.

    q = min(c, λ p) with Σ q = 1 is, of all distributions within the caps, the one with the least
    KL(q || p): what capped tokens lose, the others share in proportion. Where the caps allow less
    than 1 in all, q is c, normalised.
    """
    log_p, caps = logits.double().log_softmax(-1), caps.double()
    log_c = caps.log()
    # Tokens reach their caps, as λ grows, in the order of c / p.
    log_ratio, order = (log_c - log_p).sort(dim=-1, stable=True)
    c = caps.gather(-1, order)
    p = log_p.exp().gather(-1, order)
    below = c.cumsum(-1) - c  # of the tokens before, all capped
    above = p.flip(-1).cumsum(-1).flip(-1)  # of this token and those after, not capped
    # Where this token just reaches its cap, these and those make at least 1: λ is reached before.
    reached = below + above * log_ratio.exp() >= 1
    first = reached.int().argmax(-1, keepdim=True)
    left, shared = (1 - below.gather(-1, first)), above.gather(-1, first)
    log_lambda = left.log() - shared.log()
    within = torch.minimum(log_c, log_p + log_lambda)
    too_little = log_c.masked_fill(log_p == -torch.inf, -torch.inf).log_softmax(-1)
    return torch.where(reached.any(-1, keepdim=True), within, too_little)


@dataclass(frozen=True)
class CappedGuidance(Guidance):
    """A Q-network reads every text along, and caps its next token.

    passes: how often probabilities are cut and normalised anew, or by `capped_exactly`.
    """

    network: QNetwork
    epsilon: float
    strength: float
    passes: int | Literal["exact"]
    max_new_tokens: int

    reads_prompts = True

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        return CappedRows(
            self, ReadingRows(self.network.trunk, prompts, copies, self.max_new_tokens)
        )


class CappedRows(Rows):
    def __init__(self, guidance: CappedGuidance, reading: ReadingRows) -> None:
        self.guidance = guidance
        self.reading = reading
        self.append, self.keep = reading.append, reading.keep

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        guidance = self.guidance
        values = guidance.network.head(self.reading.last_state())
        caps = caps_of(values, epsilon=guidance.epsilon, strength=guidance.strength)
        if guidance.passes == "exact":
            return capped_exactly(logits, caps).to(logits)
        return capped_by_passes(logits, caps.to(logits), guidance.passes)

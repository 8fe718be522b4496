"""Post-training on documents of the highest and of the lowest influence: losses and their texts.

With π the model of weights θ, π₀ the frozen one of weights θ₀ that it began as, NLL the mean loss
of a text over its tokens, D(x) = NLL₀(x) − NLL(x) the mean log-ratio of its tokens, K₊ the
documents that cause what is not wanted, K₋ those that inhibit it, and R others of the corpus,

    pair     −mean log σ( β (D(x₋) − D(x₊)) )  +  μ KL(π₀ || π)
    pbrf     KL(π₀ || π)  +  λ/2 ‖θ − θ₀‖²  +  ε mean( NLL(x₋) − NLL(x₊) )
    ascent   −mean NLL(x₊)  +  μ KL(π₀ || π)

over x₋ in K₋ and x₊ in K₊, KL being that of the next token on R. The second is the proximal Bregman
response (Bae et al., 2022, arXiv 2209.05364): the Bregman divergence of cross-entropy from the
logits of π₀ is KL(π₀ || π), whatever the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid

from ifguide.models.token_texts import TokenText, stacked


class InfluenceTexts(NamedTuple):
    """One text of K₋, one of K₊, and one of R."""

    inhibiting: TokenText
    causing: TokenText
    other: TokenText


def extremes(order: Sequence[int], share: float) -> tuple[list[int], list[int], list[int]]:
    """Return the first share of a ranking, its last share from the end on, and what lies between.

    The i-th of the first and the i-th of the second are equally far from the middle.
    """
    count = max(1, int(share * len(order)))
    ranked = list(map(int, order))
    return ranked[:count], ranked[: -count - 1 : -1], ranked[count:-count]


def stacked_influence(examples: Sequence[InfluenceTexts]) -> dict[str, torch.Tensor]:
    """Return a batch of 3 · examples texts: all of K₋, all of K₊, all of R."""
    return stacked([text for kind in zip(*examples, strict=True) for text in kind])


def pair_loss(inhibiting: torch.Tensor, causing: torch.Tensor, beta: float) -> torch.Tensor:
    """Return −mean log σ(β (D(x₋) − D(x₊))) of log-ratios D, (pairs,) each."""
    return -logsigmoid(beta * (inhibiting - causing)).mean()


def bounded(losses: torch.Tensor, highest: float | None) -> torch.Tensor:
    """Return losses of which one above `highest` is a constant: raising it has no end otherwise."""
    return losses if highest is None else losses.clamp(max=highest)


def response_term(
    inhibiting: torch.Tensor, causing: torch.Tensor, epsilon: float, highest: float | None
) -> torch.Tensor:
    """Return ε mean(NLL(x₋) − NLL(x₊)) of mean losses, (pairs,) each, those of K₊ `bounded`."""
    return epsilon * (inhibiting - bounded(causing, highest)).mean()


def squared_distance(model: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    """Return ‖θ − θ₀‖² over all weights of two models of one architecture."""
    start = dict(reference.named_parameters())
    return sum((weight - start[name]).square().sum() for name, weight in model.named_parameters())

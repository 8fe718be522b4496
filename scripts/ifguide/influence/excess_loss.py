"""Excess loss: what a model of harmless text finds unlikely, and the uncensored one does not.

    S_ij = L_ij(reference) - L_ij(uncensored model)

Rho-1 (Lin et al., "Not All Tokens Are What You Need", 2024, arXiv 2404.07965) learns from the
tokens whose loss exceeds that of a reference by most. Here the reference has learned from harmless
text, and the sign is turned round: what the toxic part of the corpus alone has taught scores high.
"""

import torch
from transformers import PreTrainedModel

from ifguide.models.loading import HiddenStates, token_losses


def excess_loss_scorer(
    model: PreTrainedModel, reference: PreTrainedModel, *, logits_budget_bytes: int
):
    """Return tokens, int64 (blocks, T) -> S (blocks, T); column 0 is 0."""
    body, other = HiddenStates(model), HiddenStates(reference)

    @torch.no_grad()
    def score(tokens: torch.Tensor) -> torch.Tensor:
        expected = token_losses(other, tokens, logits_budget_bytes=logits_budget_bytes)
        return expected - token_losses(body, tokens, logits_budget_bytes=logits_budget_bytes)

    return score

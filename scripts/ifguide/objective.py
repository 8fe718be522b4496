"""The suppression objective: learn every token but the selected ones, and unlearn those.

    loss = ( sum over unselected of L_ij  +  penalty over selected ) / label tokens in the batch

with L_ij = -log p_ij and one of three penalties, λ being the strength:

    published       -λ L_ij                gradient ascent, unbounded
    unlikelihood    -λ log(1 - p_ij)       bounded: its gradient fades as p_ij falls
    exclusion       0                      the token is context only
"""

import torch

from ifguide.precision import at_least_float32

OBJECTIVES = ("published", "unlikelihood", "exclusion")
IGNORED_LABEL = -100


def label_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -log p of each label, (labels,); ignored labels give 0.

    logits: (labels, vocabulary); labels: int64 (labels,), IGNORED_LABEL where there is none.
    """
    return torch.nn.functional.cross_entropy(
        at_least_float32(logits), labels, reduction="none", ignore_index=IGNORED_LABEL
    )


def unlikelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return -log(1 - p) of each label, finite and with a gradient even where p is 1.

    1 - p is the mass of all other tokens: log(1 - p) = logsumexp(others) - logsumexp(all).
    """
    logits = at_least_float32(logits)
    others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
    return logits.logsumexp(dim=1) - others.logsumexp(dim=1)


def suppression_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    selected: torch.Tensor,
    *,
    objective: str,
    strength: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss (to be divided by the label tokens) and the label losses, detached.

    logits: (blocks, T, vocabulary); labels: int64 (blocks, T); selected: bool (blocks, T), on label
    indices: column j speaks of token j as a label. The label losses, of columns 1 to T - 1, are
    flat: (blocks · (T - 1),).
    """
    logits = logits[:, :-1].flatten(0, 1)
    labels = labels[:, 1:].flatten()
    selected = (selected[:, 1:] & (labels != IGNORED_LABEL).view(selected[:, 1:].shape)).flatten()
    losses = label_losses(logits, labels)
    total = (losses * ~selected).sum()
    if objective == "published":
        total = total - strength * (losses * selected).sum()
    elif objective == "unlikelihood":
        total = total + strength * unlikelihood(logits[selected], labels[selected]).sum()
    elif objective != "exclusion":
        raise ValueError(f"objective {objective!r} is none of {', '.join(OBJECTIVES)}")
    return total, losses.detach()

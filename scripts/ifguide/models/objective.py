"""The suppression objective: learn every token but the selected ones, and unlearn those.

    loss = ( sum over unselected of L_ij  +  penalty over selected ) / label tokens in the batch

with L_ij = -log p_ij and one of three penalties, λ being the strength:

    published       -λ L_ij                gradient ascent, unbounded
    unlikelihood    -λ log(1 - p_ij)       bounded: its gradient fades as p_ij falls
    exclusion       0                      the token is context only

With y the label and z the logits of a position, the gradients are

    ∂L/∂z_k               = p_k - [k = y]
    ∂(-log(1 - p_y))/∂z_k = p_y ( [k = y] - [k ≠ y] p_k / (1 - p_y) )
"""

import torch

from ifguide.models.labels import IGNORED_LABEL

OBJECTIVES = ("published", "unlikelihood", "exclusion")


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
    indices: column j speaks of token j as a label. The label losses are (blocks, T), column 0 is 0.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r} is none of {', '.join(OBJECTIVES)}")
    # The labels move to the positions that predict them; a slice of the logits would be a copy.
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    suppressed = torch.nn.functional.pad(selected[:, 1:], (0, 1), value=False)
    suppressed = suppressed & (following != IGNORED_LABEL)
    total, losses = _SuppressionLoss.apply(
        logits.flatten(0, 1), following.flatten(), suppressed.flatten(), objective, strength
    )
    return total, torch.nn.functional.pad(losses.view(labels.shape)[:, :-1], (1, 0))


class _SuppressionLoss(torch.autograd.Function):
    """The sum of all positions' losses; (positions, vocabulary) is held twice, not four times.

    Autograd through cross entropy and a second term of the selected positions would keep logits,
    their logarithms, and two gradients of that size; this keeps the logarithms and one gradient.
    """

    @staticmethod
    def forward(ctx, logits, labels, selected, objective, strength):
        kept = labels != IGNORED_LABEL
        ids = labels.clamp(min=0)
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = torch.log_softmax(logits, dim=1, dtype=wide)
        label_log_p = log_p.gather(1, ids.unsqueeze(1)).squeeze(1)
        losses = torch.where(kept, -label_log_p, 0.0)
        penalty = -strength if objective == "published" else 0.0
        weights = torch.where(selected, penalty, kept.to(wide))
        total = (weights * losses).sum()
        rows = log_of_others = None
        if objective == "unlikelihood":
            rows = selected.nonzero().squeeze(1)
            log_of_others = log_of_other_tokens(log_p[rows], ids[rows])
            total = total - strength * log_of_others.sum()
        ctx.save_for_backward(log_p, ids, weights, rows, log_of_others)
        ctx.strength, ctx.logits_type = strength, logits.dtype
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    def backward(ctx, gradient, _):
        log_p, ids, weights, rows, log_of_others = ctx.saved_tensors
        into_logits = log_p.exp()
        into_logits.scatter_add_(1, ids.unsqueeze(1), into_logits.new_full((len(ids), 1), -1.0))
        into_logits.mul_((weights * gradient).unsqueeze(1))
        if rows is not None:
            # In logarithms: p_y p_k / (1 - p_y) is finite where p_y / (1 - p_y) is not.
            row_ids = ids[rows].unsqueeze(1)
            label_log_p = log_p[rows].gather(1, row_ids)
            unlearned = -(log_p[rows] + label_log_p - log_of_others.unsqueeze(1)).exp()
            unlearned.scatter_(1, row_ids, label_log_p.exp())
            into_logits[rows] = unlearned * (ctx.strength * gradient)
        return into_logits.to(ctx.logits_type), None, None, None, None


def log_of_other_tokens(log_p: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return log(1 - p) of each label, (labels,), accurate where p is near 1.

    log_p: log-probabilities (labels, vocabulary); ids: int64 (labels,). 1 - p is the mass of all
    other tokens, so log(1 - p) is the logsumexp of theirs.
    """
    return log_p.scatter(1, ids.unsqueeze(1), float("-inf")).logsumexp(dim=1)

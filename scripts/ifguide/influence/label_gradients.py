"""The summed loss's gradient at the hidden states, without a graph over the logits.

    ∂/∂logits (-log p(y)) = softmax(logits) - onehot(y)

so a pass that wants gradients and no losses makes the logits in chunks, turns each chunk into its
own gradient, and forgets it. Labels drawn from the model come from the same probabilities.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ifguide.models.loading import HiddenStates
from ifguide.models.precision import at_least_float32


def uniform_numbers(
    indices: Sequence[int], length: int, seed_of_block: Callable[[int], int]
) -> torch.Tensor:
    """Return random numbers in [0, 1) that depend on their block's index alone.

    float64 (blocks, length).
    """
    rows = []
    for index in indices:
        generator = torch.Generator().manual_seed(seed_of_block(index))
        rows.append(torch.rand(length, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def drawn_labels(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the label at which the cumulative probability passes `uniform`: int64 (positions,).

    probabilities: (positions, vocabulary), at least float32; uniform: float64 (positions,).
    The sum runs over groups of labels first, then within one group, so that the float64 part is
    short. A label of probability 0 is never drawn.
    """
    positions, vocabulary = probabilities.shape
    width = math.isqrt(vocabulary)
    whole = vocabulary // width * width
    groups = probabilities[:, :whole].view(positions, -1, width).sum(2)
    rest = probabilities[:, whole:].sum(1, keepdim=True)
    groups = torch.cat([groups, rest], 1).double()
    group, share = _passed(groups, uniform.to(groups.device).unsqueeze(1))
    members = group * width + torch.arange(width, device=group.device)
    within = probabilities.gather(1, members.clamp(max=vocabulary - 1)).double()
    member, _ = _passed(within * (members < vocabulary), share)
    return (group * width + member).squeeze(1).clamp_(max=vocabulary - 1)


def _passed(masses: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the running sum passes `share` of the total, and the share within that mass."""
    cumulative = masses.cumsum(1)
    wanted = share * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=masses.shape[1] - 1)
    mass = masses.gather(1, place)
    before = cumulative.gather(1, place) - mass
    inside = ((wanted - before) / mass).clamp_(0, 1 - 2**-53)
    return place, inside


@torch.no_grad()
def hidden_gradient(
    head: nn.Module | None,
    hidden: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    counted: torch.Tensor | None = None,
    uniform: torch.Tensor | None = None,
    logits_budget_bytes: int,
) -> torch.Tensor:
    """Return the gradient of Σ -log p(label) at `hidden`, (positions, width), in its type.

    hidden: (positions, width), or the logits themselves where `head` is None; labels: int64
    (positions,), or None to draw them with `uniform`, float64 (positions,); counted: bool
    (positions,), None where every position counts. The float32 logits of a chunk stay within
    `logits_budget_bytes`, unless the model makes its own logits.
    """
    gradient = torch.empty_like(hidden)
    vocabulary = hidden.shape[1] if head is None else _outputs(head, hidden)
    chunk = max(1, logits_budget_bytes // (4 * vocabulary))
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        with torch.enable_grad():
            inputs = hidden[rows].detach().requires_grad_()
            logits = inputs if head is None else head(inputs)
        change = at_least_float32(logits.detach()).softmax(1)
        chosen = drawn_labels(change, uniform[rows]) if labels is None else labels[rows]
        change.scatter_add_(1, chosen.unsqueeze(1), change.new_full((len(change), 1), -1.0))
        if counted is not None:
            change *= counted[rows].unsqueeze(1)
        if head is None:
            gradient[rows] = change
        else:
            (gradient[rows],) = torch.autograd.grad(logits, inputs, change.to(logits.dtype))
    return gradient


def _outputs(head: nn.Module, hidden: torch.Tensor) -> int:
    return head(hidden[:1]).shape[1]


def backpropagate(
    body: HiddenStates,
    tokens: torch.Tensor,
    valid: torch.Tensor,
    *,
    uniform: torch.Tensor | None = None,
    logits_budget_bytes: int,
) -> None:
    """Run the backward pass of the loss summed over the label tokens of a batch.

    tokens: int64 (blocks, T); valid: bool (blocks, T). Labels are the blocks' own, or drawn from
    the model with `uniform`, (blocks, T - 1). Padding is neither a label nor predicted from.
    """
    hidden = body(tokens)
    inner = hidden.detach()[:, :-1].flatten(0, 1)
    gradient = torch.zeros_like(hidden)
    gradient[:, :-1] = hidden_gradient(
        body.head,
        inner,
        tokens[:, 1:].flatten() if uniform is None else None,
        counted=None if valid.all() else valid[:, 1:].flatten(),
        uniform=None if uniform is None else uniform.flatten(),
        logits_budget_bytes=logits_budget_bytes,
    ).view(gradient[:, :-1].shape)
    hidden.backward(gradient)

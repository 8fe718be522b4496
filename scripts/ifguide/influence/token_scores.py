"""Token scores: how much learning one token moves the model towards toxic continuations.

    loss       S_ij = ⟨v, ∇L_ij⟩                      the derivative of the training objective
    position   S_ij = Σ_layers gᵀ V a at position j-1  (the position that predicts token j),
               g being the gradient of the whole block's loss

Both sum to the same block score. A positive score: a gradient step on this token makes toxic
continuations likelier than harmless ones. Column j always speaks of token j as a label; column 0
is 0.

`loss` has three routes: two forward passes at θ ± εv (no graph, 4P of arithmetic a token against
6P of a training step), forward-mode differentiation (exact), and one backward pass a token (exact
and slow; the oracle).
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from ifguide.influence.ekfac import watched, without_weight_gradients
from ifguide.influence.label_gradients import backpropagate
from ifguide.influence.query_direction import Direction
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.precision import at_least_float32
from ifguide.models.tracked_layers import TrackedLayer

Scorer = Callable[[torch.Tensor], torch.Tensor]


def step_size(model: nn.Module, direction: Direction, relative_step: float) -> float:
    """Return ε such that ‖εv‖ = relative_step · ‖θ‖ over the tracked parameters.

    Raises ValueError where the direction is zero.
    """
    parameters = dict(model.named_parameters())
    weights = sum(parameters[name].detach().double().square().sum() for name in direction)
    change = sum(tensor.double().square().sum() for tensor in direction.values())
    if change == 0:
        raise ValueError("the query direction is zero")
    return relative_step * float((weights / change).sqrt())


def two_forward_scorer(
    model: PreTrainedModel,
    direction: Direction,
    *,
    relative_step: float,
    logits_budget_bytes: int,
) -> Scorer:
    """Return tokens -> (L(θ + εv) - L(θ - εv)) / 2ε, without an autograd graph.

    Uses `model` and `direction` up: afterwards the model stands at θ - εv, and the direction's
    tensors, where they have the weights' type, hold θ + εv. No copy of the weights is made.
    """
    step = step_size(model, direction, relative_step)
    body = HiddenStates(model)
    parameters = {name: model.get_parameter(name) for name in direction}
    behind, ahead = {}, {}
    with torch.no_grad():
        for name, parameter in parameters.items():
            change = direction[name].to(parameter).mul_(step)
            behind[name] = parameter.data.sub_(change)
            ahead[name] = change.mul_(2).add_(parameter)

    @torch.no_grad()
    def score(tokens: torch.Tensor) -> torch.Tensor:
        losses = []
        for weights in (ahead, behind):
            for name, parameter in parameters.items():
                parameter.data = weights[name]
            losses.append(token_losses(body, tokens, logits_budget_bytes=logits_budget_bytes))
        return losses[0].sub_(losses[1]).div_(2 * step)

    return score


def forward_mode_scorer(
    model: PreTrainedModel, direction: Direction, *, logits_budget_bytes: int
) -> Scorer:
    """Return tokens -> the exact directional derivative of each token's loss."""
    body = HiddenStates(model)
    parameters = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    primals = {f"model.{name}": parameters[f"model.{name}"] for name in direction}
    tangents = {
        f"model.{name}": tensor.to(primals[f"model.{name}"]) for name, tensor in direction.items()
    }

    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return token_losses(body, tokens, logits_budget_bytes=logits_budget_bytes)

    losses = Losses()

    @torch.no_grad()
    def score(tokens: torch.Tensor) -> torch.Tensor:
        def at(moving: dict[str, torch.Tensor]) -> torch.Tensor:
            return functional_call(losses, {**parameters, **moving}, (tokens,))

        # The fused attention kernels have no forward mode.
        with sdpa_kernel(SDPBackend.MATH):
            return jvp(at, (primals,), (tangents,))[1]

    return score


def backward_scorer(
    model: PreTrainedModel, direction: Direction, *, logits_budget_bytes: int
) -> Scorer:
    """Return tokens -> ⟨v, ∇L_ij⟩ by one backward pass a token: slow, exact, any kernel."""
    body = HiddenStates(model)
    parameters = dict(model.named_parameters())
    moving = [parameters[name] for name in direction]
    vectors = [direction[name].to(parameters[name]) for name in direction]

    def score(tokens: torch.Tensor) -> torch.Tensor:
        for parameter in moving:
            parameter.requires_grad_(True)
        losses = token_losses(body, tokens, logits_budget_bytes=logits_budget_bytes)
        scores = torch.zeros_like(losses)
        for block in range(losses.shape[0]):
            for label in range(1, losses.shape[1]):
                gradients = torch.autograd.grad(losses[block, label], moving, retain_graph=True)
                scores[block, label] = sum(
                    (gradient * vector).sum()
                    for gradient, vector in zip(gradients, vectors, strict=True)
                )
        return scores.detach()

    return score


def position_scorer(
    model: PreTrainedModel,
    layers: Sequence[TrackedLayer],
    direction: Direction,
    *,
    logits_budget_bytes: int = 2**26,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return (tokens, valid) -> `position` scores, moved to the label that a position predicts."""
    body = HiddenStates(model)

    def score(tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        # Summed over layers in float32 or wider: a half-precision sum would lose small layers.
        dtype = torch.promote_types(body.model.dtype, torch.float32)
        scores = torch.zeros(tokens.shape, dtype=dtype, device=tokens.device)

        def add(layer: TrackedLayer, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
            products = at_least_float32(layer.apply(direction, inputs)).mul_(gradients)
            scores.add_(products.sum(-1).view(tokens.shape))

        with without_weight_gradients(model), watched(layers, add):
            backpropagate(body, tokens, valid, logits_budget_bytes=logits_budget_bytes)
        return torch.nn.functional.pad(scores[:, :-1], (1, 0))

    return score


def relative_error(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    """Return ‖approximate - exact‖ / ‖exact‖ in float64."""
    exact = exact.double()
    return float((approximate.double() - exact).norm() / exact.norm())

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

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from ifguide.ekfac import only_activation_gradients, watched
from ifguide.models import HiddenStates, token_losses
from ifguide.precision import at_least_float32
from ifguide.query_direction import Direction
from ifguide.tracked_layers import TrackedLayer

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


def moved(model: PreTrainedModel, direction: Direction, step: float) -> PreTrainedModel:
    """Return a copy of `model` at θ + step · v that shares every parameter v does not move."""
    parameters = dict(model.named_parameters())
    kept = {id(p): p for name, p in parameters.items() if name not in direction}
    twin = copy.deepcopy(model, memo=kept)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name in direction:
                parameter.add_(direction[name].to(parameter), alpha=step)
    return twin


def two_forward_scorer(
    model: PreTrainedModel,
    direction: Direction,
    *,
    relative_step: float,
    logits_budget_bytes: int,
) -> Scorer:
    """Return tokens -> (L(θ + εv) - L(θ - εv)) / 2ε, without an autograd graph.

    `model` is moved to θ - εv and must not be used afterwards: only one more copy of the tracked
    weights is held.
    """
    step = step_size(model, direction, relative_step)
    ahead = HiddenStates(moved(model, direction, step))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in direction:
                parameter.sub_(direction[name].to(parameter), alpha=step)
    behind = HiddenStates(model)

    @torch.no_grad()
    def score(tokens: torch.Tensor) -> torch.Tensor:
        losses = token_losses(ahead, tokens, logits_budget_bytes=logits_budget_bytes)
        losses -= token_losses(behind, tokens, logits_budget_bytes=logits_budget_bytes)
        return losses.div_(2 * step)

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
    model: PreTrainedModel, layers: Sequence[TrackedLayer], direction: Direction
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return (tokens, valid) -> `position` scores, moved to the label that a position predicts."""
    body = HiddenStates(model)
    matrices = {layer.name: layer.matrix(direction).to(model.device) for layer in layers}

    def score(tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        # Summed over layers in float32 or wider: a half-precision sum would lose small layers.
        dtype = torch.promote_types(body.model.dtype, torch.float32)
        scores = torch.zeros(tokens.shape, dtype=dtype, device=tokens.device)

        def add(layer: TrackedLayer, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
            rotated = layer.activations(inputs) @ matrices[layer.name].to(inputs).T
            products = (at_least_float32(gradients) * rotated).sum(-1)
            scores.add_(products.view(tokens.shape))

        with only_activation_gradients(model), watched(layers, add):
            losses = token_losses(body, tokens)
            (losses * valid).sum().backward()
        return torch.nn.functional.pad(scores[:, :-1], (1, 0))

    return score


def relative_error(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    """Return ‖approximate - exact‖ / ‖exact‖ in float64."""
    exact = exact.double()
    return float((approximate.double() - exact).norm() / exact.norm())

"""How much arithmetic each stage takes, in FLOPs: a multiplication and an addition are two.

With N the parameters that multiply activations, L blocks of attention width d, and T the length of
the texts in tokens, a token costs (Chowdhery et al., 2022, arXiv 2204.02311, appendix B)

    forward                       2 N + 4 L d T
    training step                 three times that: the backward pass is two forward passes

Attention counts all T positions, as the kernels' own counts do, whether or not half are masked.
Elementwise work, norms and optimisers are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifguide.models.model_shapes import ModelShape

# Blocks of columns in which a covariance's lower triangle is summed: `ekfac.add_lower_gram`.
NARROWEST_COLUMNS = 256
COLUMN_BLOCKS = 4


def _attention(shape: ModelShape, length: float) -> float:
    return 4 * shape.depth * shape.attention_width * length


def forward_flops(shape: ModelShape, length: float) -> float:
    """Return the FLOPs of one forward pass for each token of a text of `length` tokens."""
    return 2 * shape.multiplied + _attention(shape, length)


def training_flops(shape: ModelShape, length: float, *, recomputed: bool = False) -> float:
    """Return the FLOPs of one training step for each token.

    recomputed: the blocks' activations are computed again in the backward pass.
    """
    forward = forward_flops(shape, length)
    again = 2 * shape.tracked + _attention(shape, length) if recomputed else 0
    return 3 * forward + again


def activation_gradient_flops(shape: ModelShape, length: float) -> float:
    """Return the FLOPs for each token of a forward and a backward pass without weight gradients."""
    return 4 * shape.multiplied + 3 * _attention(shape, length)


def query_gradient_flops(shape: ModelShape, length: float) -> float:
    """Return the FLOPs for each token of a query record: gradients of the tracked weights alone."""
    return activation_gradient_flops(shape, length) + 2 * shape.tracked


def gram_flops(width: int) -> float:
    """Return the FLOPs of adding one row's outer product to the lower part of a covariance."""
    block = max(NARROWEST_COLUMNS, -(-width // COLUMN_BLOCKS))
    starts = range(0, width, block)
    return sum(
        2 * (min(width, start + block) - start) * min(width, start + block) for start in starts
    )


def covariance_flops(shape: ModelShape, length: float, positions: float = 1.0) -> float:
    """Return the FLOPs of the covariance pass for each token; `positions` is the share summed over.

    An upper bound: layers that read one tensor share its covariance.
    """
    sums = sum(
        gram_flops(layer.outputs) + gram_flops(layer.inputs - layer.has_bias)
        for layer in shape.layers
    )
    return activation_gradient_flops(shape, length) + positions * sums


def eigenvalue_flops(shape: ModelShape, length: int) -> float:
    """Return the FLOPs of the eigenvalue correction pass for each token of a block of `length`.

    Either side is rotated before or after the sum over the block's tokens, whichever is cheaper.
    """
    rotations = 0.0
    for layer in shape.layers:
        inputs, outputs = layer.inputs - layer.has_bias, layer.outputs
        rotations += 2 * inputs * layer.inputs * (length if length <= outputs else outputs)
        rotations += 2 * outputs**2 * (length if length <= inputs else layer.inputs)
        rotations += 2 * length * outputs * (layer.inputs if length <= outputs else inputs)
    return activation_gradient_flops(shape, length) + rotations / length


def decomposition_flops(shape: ModelShape) -> float:
    """Return the float64 FLOPs of all eigendecompositions: 9 n³ each (Golub and Van Loan, 8.3)."""
    return sum(9.0 * (layer.outputs**3 + layer.inputs**3) for layer in shape.layers)


def inverse_hessian_flops(shape: ModelShape) -> float:
    """Return the float64 FLOPs of one product of the inverse Hessian and a query."""
    return sum(4.0 * layer.parameters * (layer.outputs + layer.inputs) for layer in shape.layers)


def score_flops(shape: ModelShape, length: int, route: str) -> float:
    """Return the FLOPs of one token's score.

    route: `two_forward`, `forward_mode`, `backward` (of every label by itself) or `position`.
    """
    if route == "two_forward":
        return 2 * forward_flops(shape, length)
    if route == "forward_mode":
        return 4 * shape.multiplied + 2 * shape.tracked + 3 * _attention(shape, length)
    if route == "position":
        return activation_gradient_flops(shape, length) + 2 * shape.tracked
    backward = query_gradient_flops(shape, length) - forward_flops(shape, length)
    return forward_flops(shape, length) + (length - 1) * backward


def generation_flops(
    shape: ModelShape, prompts: float, prompt_length: float, continuations: int, new_tokens: int
) -> float:
    """Return the FLOPs of sampling; a prompt is read once, and no continuation ends early."""
    read = prompts * prompt_length * forward_flops(shape, prompt_length)
    written = prompts * continuations * (new_tokens - 1)
    return read + written * forward_flops(shape, prompt_length + new_tokens / 2)


def encoder_flops(width: int, depth: int, length: float) -> float:
    """Return the forward FLOPs for each token of a classifier; a block has 12 · width² weights."""
    return depth * (24 * width**2 + 4 * width * length)

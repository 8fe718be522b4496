"""How much memory each stage holds at its peak, and how large what it leaves is, in bytes.

Memory is that of the device that computes. Activations of a block of width h that a backward pass
needs take about 34 h bytes a token in half precision, attention probabilities being computed again
(Korthikanti et al., 2022, arXiv 2205.05198, equation 1), and twice that in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifguide.models.model_shapes import ModelShape

FLOAT = 4  # bytes of a float32
LIBRARIES = 600 * 2**20  # what a process holds before it loads anything
# Bytes a token: ids of a vocabulary up to 2**16 or larger, document ids, and marks.
SMALL_TOKEN, LARGE_TOKEN, DOCUMENT_ID, MARK = 2, 4, 4, 1


def _activations(shape: ModelShape, precision: str) -> float:
    return (34 if precision == "bfloat16" else 68) * shape.width


def training_memory(
    shape: ModelShape, tokens: int, precision: str, *, recomputed: bool = False
) -> float:
    """Return the bytes of one training step of `tokens` tokens a process.

    Weights, gradients and both moments of AdamW are float32; so are the logits and their gradient.
    recomputed: only the inputs of blocks are kept, and the activations of one block at a time.
    """
    state = 4 * FLOAT * shape.parameters
    if precision == "bfloat16":
        state += 2 * shape.parameters  # the products' copies of the weights
    kept = shape.depth * _activations(shape, precision)
    if recomputed:
        kept = shape.depth * FLOAT * shape.width + _activations(shape, precision)
    logits = 3 * FLOAT * shape.vocabulary
    return LIBRARIES + state + tokens * (kept + logits)


def covariance_memory(shape: ModelShape, tokens: int, logits_budget: int) -> float:
    """Of the device; sums that wait for others lie in the processor's memory."""
    return (
        LIBRARIES
        + FLOAT * (shape.parameters + covariance_numbers(shape))
        + tokens * shape.depth * _activations(shape, "float32")
        + 2 * logits_budget
    )


def eigenvalue_memory(shape: ModelShape, tokens: int, logits_budget: int) -> float:
    return covariance_memory(shape, tokens, logits_budget) + FLOAT * shape.tracked


def decomposition_memory(shape: ModelShape, shards: int) -> float:
    """The sums of the shards that wait for others (`ordered_sums`), and the bases."""
    return LIBRARIES + FLOAT * covariance_numbers(shape) * (shards.bit_length() + 1)


def selection_memory(documents: float) -> float:
    """Some pieces of the scores, and a dozen numbers for each document that is ranked."""
    return 90 * 2**20 + 100 * documents


def score_memory(shape: ModelShape, tokens: int, logits_budget: int) -> float:
    """Two forward passes hold one copy of the tracked weights beyond the model."""
    widest = max([shape.width, *(layer.outputs for layer in shape.layers)])
    return (
        LIBRARIES
        + FLOAT * (shape.parameters + shape.tracked + 4 * tokens * widest)
        + 2 * logits_budget
    )


def gradient_memory(shape: ModelShape, tokens: int, logits_budget: int) -> float:
    """The sum of gradients and those of a batch, beside the model and its activations."""
    return (
        LIBRARIES
        + FLOAT * (shape.parameters + 2 * shape.tracked)
        + tokens * shape.depth * _activations(shape, "float32")
        + 2 * logits_budget
    )


def generation_memory(shape: ModelShape, rows: int, length: float) -> float:
    """The key-value cache of all rows, and their logits with the probabilities made of them."""
    cache = 2 * shape.depth * shape.key_value_width * length
    return LIBRARIES + FLOAT * (shape.parameters + rows * (cache + 4 * shape.vocabulary))


def covariance_numbers(shape: ModelShape) -> int:
    """Return how many numbers all covariances have; their eigenvectors have as many."""
    return sum(layer.outputs**2 + layer.inputs**2 for layer in shape.layers)


def factor_numbers(shape: ModelShape) -> int:
    return covariance_numbers(shape) + shape.tracked


def token_bytes(vocabulary: int) -> int:
    """Return the bytes of one token id in a shard."""
    return SMALL_TOKEN if vocabulary <= 2**16 else LARGE_TOKEN

"""Weights that multiply token scores at selection; stored scores stay exact inner products."""

from collections.abc import Iterable, Sequence

import numpy as np


def inverse_document_frequency(
    token_shards: Iterable[np.ndarray], vocabulary_size: int
) -> np.ndarray:
    """Return log(blocks / blocks that hold the token), float32 (vocabulary,).

    token_shards: arrays (blocks, T) of token ids. A token that occurs in no block weighs 0.
    """
    holding = np.zeros(vocabulary_size, np.int64)
    blocks = 0
    for shard in token_shards:
        for block in shard:
            holding[np.unique(block)] += 1
        blocks += len(shard)
    weights = np.zeros(vocabulary_size, np.float32)
    seen = holding > 0
    weights[seen] = np.log(blocks / holding[seen])
    return weights


def weighted_scores(
    scores: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    *,
    weight: str,
    power: float,
    vocabulary_size: int,
) -> list[np.ndarray]:
    """Return the scores that rank tokens: S_ij · weight(x_ij)^power, float32, of the same shapes.

    scores, tokens: the shards, (blocks, T) each. weight: "none" or "inverse_document_frequency".
    """
    if weight == "none":
        return list(scores)
    weights = inverse_document_frequency(tokens, vocabulary_size) ** np.float32(power)
    return [values * weights[ids] for values, ids in zip(scores, tokens, strict=True)]


def unmoved(scores: np.ndarray) -> np.ndarray:
    """Return scores (blocks, T) at the positions that predict their labels, one token earlier.

    The last position predicts no label of its block and scores 0; a block that is not scored (NaN)
    stays so.
    """
    return np.concatenate([scores[:, 1:], 0 * scores[:, -1:]], axis=1)

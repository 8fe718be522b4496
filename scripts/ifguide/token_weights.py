"""Weights that multiply token scores at selection; stored scores stay exact inner products."""

from collections.abc import Iterable

import numpy as np

_BLOCKS_AT_ONCE = 1024


def inverse_document_frequency(
    token_shards: Iterable[np.ndarray], vocabulary_size: int
) -> np.ndarray:
    """Return log(blocks / blocks that hold the token), float32 (vocabulary,).

    token_shards: arrays (blocks, T) of token ids. A token that occurs in no block weighs 0.
    """
    holding = np.zeros(vocabulary_size, np.int64)
    blocks = 0
    for shard in token_shards:
        for start in range(0, len(shard), _BLOCKS_AT_ONCE):
            ordered = np.sort(shard[start : start + _BLOCKS_AT_ONCE], axis=1)
            first = np.ones(ordered.shape, bool)
            first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
            holding += np.bincount(ordered[first], minlength=vocabulary_size)
        blocks += len(shard)
    weights = np.zeros(vocabulary_size, np.float32)
    seen = holding > 0
    weights[seen] = np.log(blocks / holding[seen])
    return weights

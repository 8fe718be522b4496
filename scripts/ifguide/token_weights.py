"""Weights that multiply token scores at selection; stored scores stay exact inner products."""

from collections.abc import Iterable

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

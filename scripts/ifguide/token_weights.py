"""How stored scores rank tokens: pooled over a token's occurrences, and weighted by its rarity.

Stored scores stay exact inner products; pooling and weights act at selection.
"""

from collections.abc import Iterable, Mapping, Sequence

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


def pooled_scores(
    scores: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    *,
    pooling: float,
    vocabulary_size: int,
) -> list[np.ndarray]:
    """Return (1 - pooling) · S_ij + pooling · mean of S over the labels equal to x_ij, float32.

    scores, tokens, documents: the shards, (blocks, T) each. The mean is over the scored labels of
    all shards: not over column 0, padding (negative documents) or blocks that were not scored
    (NaN). Column 0 and padding keep score 0.
    """
    if pooling == 0:
        return list(scores)
    totals, counts = np.zeros(vocabulary_size), np.zeros(vocabulary_size)
    labels = []
    for values, ids, owners in zip(scores, tokens, documents, strict=True):
        label = (owners >= 0) & ~np.isnan(values)
        label[:, 0] = False
        labels.append(label)
        totals += np.bincount(ids[label], weights=values[label], minlength=vocabulary_size)
        counts += np.bincount(ids[label], minlength=vocabulary_size)
    means = (totals / np.maximum(counts, 1)).astype(np.float32)
    share = np.float32(pooling)
    return [
        np.where(label, (1 - share) * values + share * means[ids], values)
        for values, ids, label in zip(scores, tokens, labels, strict=True)
    ]


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


def ranking_scores(
    scores: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    settings: Mapping,
    vocabulary_size: int,
) -> list[np.ndarray]:
    """Return the scores by which tokens are ranked: pooled, then weighted.

    settings: `pooling`, `token_weight` and `token_weight_power` of a selection or a variant.
    """
    pooled = pooled_scores(
        scores, tokens, documents, pooling=settings["pooling"], vocabulary_size=vocabulary_size
    )
    return weighted_scores(
        pooled,
        tokens,
        weight=settings["token_weight"],
        power=settings["token_weight_power"],
        vocabulary_size=vocabulary_size,
    )


def unmoved(scores: np.ndarray) -> np.ndarray:
    """Return scores (blocks, T) at the positions that predict their labels, one token earlier.

    The last position predicts no label of its block and scores 0; a block that is not scored (NaN)
    stays so.
    """
    return np.concatenate([scores[:, 1:], 0 * scores[:, -1:]], axis=1)

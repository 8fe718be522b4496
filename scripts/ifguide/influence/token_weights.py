"""How stored scores rank tokens: where they stand, pooled over occurrences, weighted by rarity.

Stored scores stay exact inner products on label indices; all of this acts at selection.
"""

from collections.abc import Iterable, Mapping, Sequence

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


def token_means(
    scores: Iterable[np.ndarray],
    tokens: Iterable[np.ndarray],
    documents: Iterable[np.ndarray],
    vocabulary_size: int,
    *,
    moved_back: bool = False,
) -> np.ndarray:
    """Return each token's mean score over its scored labels in all shards, float32 (vocabulary,).

    scores, tokens, documents: the shards, (blocks, T) each. Column 0, padding (negative documents)
    and blocks that were not scored (NaN) do not count. A token without a label has mean 0. With
    `moved_back`, of `unmoved` scores.
    """
    totals, counts = np.zeros(vocabulary_size), np.zeros(vocabulary_size)
    for shard in zip(scores, tokens, documents, strict=True):
        for start in range(0, len(shard[0]), _BLOCKS_AT_ONCE):
            values, ids, owners = (column[start : start + _BLOCKS_AT_ONCE] for column in shard)
            values = unmoved(values) if moved_back else values
            label = scored_labels(values, owners)
            totals += np.bincount(ids[label], weights=values[label], minlength=vocabulary_size)
            counts += np.bincount(ids[label], minlength=vocabulary_size)
    return (totals / np.maximum(counts, 1)).astype(np.float32)


def scored_labels(scores: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Return which of (blocks, T) are labels with a score: bool, false in column 0 and padding."""
    label = (documents >= 0) & ~np.isnan(scores)
    label[:, 0] = False
    return label


class TokenRanking:
    """The scores by which tokens are ranked, of any blocks of a corpus: pooled, then weighted.

        ((1 - pooling) S_ij + pooling · mean of S over the labels equal to x_ij) weight(x_ij)^power

    scores, tokens, documents: all shards, (blocks, T) each. settings: `unmoved` (S_ij is then the
    score of label j + 1), `pooling`, `token_weight` ("none" or "inverse_document_frequency") and
    `token_weight_power` of a selection or a variant. Column 0 and padding keep score 0, blocks that
    were not scored NaN.
    """

    def __init__(
        self,
        scores: Sequence[np.ndarray],
        tokens: Sequence[np.ndarray],
        documents: Sequence[np.ndarray],
        settings: Mapping,
        vocabulary_size: int,
    ) -> None:
        self._unmoved = settings["unmoved"]
        self._pooling = np.float32(settings["pooling"])
        self._means = self._weights = None
        if self._pooling:
            self._means = token_means(
                scores, tokens, documents, vocabulary_size, moved_back=self._unmoved
            )
        if settings["token_weight"] != "none":
            frequency = inverse_document_frequency(tokens, vocabulary_size)
            self._weights = frequency ** np.float32(settings["token_weight_power"])

    def __call__(self, scores: np.ndarray, tokens: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return the ranking scores, float32 (blocks, T), of blocks given by the same arrays."""
        if self._unmoved:
            scores = unmoved(scores)
        if self._means is not None:
            pooled = (1 - self._pooling) * scores + self._pooling * self._means[tokens]
            scores = np.where(scored_labels(scores, documents), pooled, scores)
        return scores if self._weights is None else scores * self._weights[tokens]


def unmoved(scores: np.ndarray) -> np.ndarray:
    """Return scores (blocks, T) at the positions that predict their labels, one token earlier.

    Column 0 is no label, and the last position predicts none of its block: both score 0. A block
    that is not scored (NaN) stays so.
    """
    moved_back = np.concatenate([scores[:, 1:], 0 * scores[:, -1:]], axis=1)
    moved_back[:, 0] *= 0
    return moved_back

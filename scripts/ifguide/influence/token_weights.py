"""How stored scores rank tokens: where they stand, pooled over occurrences, weighted by rarity.

Stored scores stay exact inner products on label indices; all of this acts at selection.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

_BLOCKS_AT_ONCE = 1024
# A context that a token has been seen in less often than this says less of it than the token's mean
# over all contexts. Between 2 and 10 the choice hardly moves the ranking of a planted corpus.
PRIOR_OCCURRENCES = 5
# Contexts are counted in so many places, whatever the corpus: 128 MiB a neighbour. Two that share a
# place share a mean.
CONTEXT_PLACES = 1 << 23


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
    shards = zip(scores, tokens, documents, strict=True)
    for values, ids, label in labels_in_parts(shards, moved_back=moved_back):
        totals += np.bincount(ids[label], weights=values[label], minlength=vocabulary_size)
        counts += np.bincount(ids[label], minlength=vocabulary_size)
    return (totals / np.maximum(counts, 1)).astype(np.float32)


def labels_in_parts(
    shards: Iterable[tuple[np.ndarray, ...]], *, moved_back: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield scores, tokens and which are scored labels, some blocks at a time: (blocks, T) each.

    shards: scores, tokens and documents of each. With `moved_back`, of `unmoved` scores.
    """
    for shard in shards:
        for start in range(0, len(shard[0]), _BLOCKS_AT_ONCE):
            values, ids, owners = (column[start : start + _BLOCKS_AT_ONCE] for column in shard)
            values = unmoved(values) if moved_back else values
            yield values, ids, scored_labels(values, owners)


def scored_labels(scores: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Return which of (blocks, T) are labels with a score: bool, false in column 0 and padding."""
    label = (documents >= 0) & ~np.isnan(scores)
    label[:, 0] = False
    return label


class ContextMeans:
    """The mean score of a token beside one neighbour, drawn towards its mean over all neighbours.

        c(x, y) = (Σ S over the labels x beside y + κ m(x)) / (number of those labels + κ)

    with m(x) the mean over all labels x and κ = PRIOR_OCCURRENCES. `neighbour` is -1 where y is the
    token before the label, 1 where it follows. A neighbour beyond the block is none, a context of
    its own. Sums are float64, of `places` contexts.
    """

    def __init__(self, token_means: np.ndarray, neighbour: int, places: int = CONTEXT_PLACES):
        self._token_means, self._neighbour, self._places = token_means, neighbour, places
        self._totals, self._counts = np.zeros(places), np.zeros(places, np.int64)

    def add(self, scores: np.ndarray, tokens: np.ndarray, label: np.ndarray) -> None:
        """Add blocks: scores and tokens (blocks, T), of which `label`, bool, says what counts."""
        contexts = self._contexts(tokens)[label]
        np.add.at(self._totals, contexts, scores[label].astype(np.float64))
        np.add.at(self._counts, contexts, 1)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Return c of every token of (blocks, T), float64."""
        contexts = self._contexts(tokens)
        prior = PRIOR_OCCURRENCES * self._token_means[tokens].astype(np.float64)
        return (self._totals[contexts] + prior) / (self._counts[contexts] + PRIOR_OCCURRENCES)

    def _contexts(self, tokens: np.ndarray) -> np.ndarray:
        beside = np.zeros(tokens.shape, np.uint64)
        shifted = tokens.astype(np.uint64) + np.uint64(1)
        if self._neighbour < 0:
            beside[:, 1:] = shifted[:, :-1]
        else:
            beside[:, :-1] = shifted[:, 1:]
        pairs = tokens.astype(np.uint64) << np.uint64(32) | beside
        # The finaliser of SplitMix64: neighbouring ids must not fall into neighbouring places.
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            pairs = (pairs ^ (pairs >> np.uint64(shift))) * np.uint64(factor)
        return ((pairs ^ (pairs >> np.uint64(31))) % np.uint64(self._places)).astype(np.int64)


class TokenRanking:
    """The scores by which tokens are ranked, of any blocks of a corpus: pooled, then weighted.

        ((1 - pooling) S_ij + pooling · P_ij) weight(x_ij)^power

    P_ij is, by `pool_over`, the mean of S over all labels equal to x_ij ("token"), or the mean of
    two such means, of the labels with the same token before them and with the same token after
    them, each drawn towards the first where it rests on few labels ("context", `ContextMeans`).

    scores, tokens, documents: all shards, (blocks, T) each. settings: `unmoved` (S_ij is then the
    score of label j + 1), `pooling`, `pool_over`, `token_weight` ("none" or
    "inverse_document_frequency") and `token_weight_power` of a selection or a variant. Column 0 and
    padding keep score 0, blocks that were not scored NaN.
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
        self._contexts: list[ContextMeans] = []
        if self._pooling:
            self._means = token_means(
                scores, tokens, documents, vocabulary_size, moved_back=self._unmoved
            )
            if settings["pool_over"] == "context":
                self._contexts = self._context_means(zip(scores, tokens, documents, strict=True))
        if settings["token_weight"] != "none":
            frequency = inverse_document_frequency(tokens, vocabulary_size)
            self._weights = frequency ** np.float32(settings["token_weight_power"])

    def _context_means(self, shards: Iterable[tuple[np.ndarray, ...]]) -> list[ContextMeans]:
        beside = [ContextMeans(self._means, neighbour) for neighbour in (-1, 1)]
        for values, ids, label in labels_in_parts(shards, moved_back=self._unmoved):
            for means in beside:
                means.add(values, ids, label)
        return beside

    def __call__(self, scores: np.ndarray, tokens: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return the ranking scores, float32 (blocks, T), of whole blocks given by the arrays."""
        if self._unmoved:
            scores = unmoved(scores)
        if self._means is not None:
            pooled = (1 - self._pooling) * scores + self._pooling * self._pooled(tokens)
            scores = np.where(scored_labels(scores, documents), pooled, scores)
        return scores if self._weights is None else scores * self._weights[tokens]

    def _pooled(self, tokens: np.ndarray) -> np.ndarray:
        if not self._contexts:
            return self._means[tokens]
        before, after = (means(tokens) for means in self._contexts)
        return (0.5 * (before + after)).astype(np.float32)


def unmoved(scores: np.ndarray) -> np.ndarray:
    """Return scores (blocks, T) at the positions that predict their labels, one token earlier.

    Column 0 is no label, and the last position predicts none of its block: both score 0. A block
    that is not scored (NaN) stays so.
    """
    moved_back = np.concatenate([scores[:, 1:], 0 * scores[:, -1:]], axis=1)
    moved_back[:, 0] *= 0
    return moved_back

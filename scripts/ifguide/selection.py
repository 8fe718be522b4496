"""Document ranking and token selection: Algorithm 1 of IF-Guide, on shards, exactly.

    s_i = number of tokens of document i whose score exceeds τ;  f_i = the sum of those scores
    documents are ranked by the harmonic mean of s and f, each min-max normalised, descending
    in that order each token above τ selects its window, until the limit is reached

τ is the exact quantile of all scores. A document is a training block or a source document; its
tokens are contiguous in the stream of blocks, so windows and limits work on the flat stream.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_HALF = 16
_BUCKETS = 1 << _HALF
_CHUNK = 1 << 22


def ordered_keys(values: np.ndarray) -> np.ndarray:
    """Map float32 to uint32 such that the order of keys is the order of values."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0: equal values, equal keys
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value_of(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def exact_quantile(chunks: Callable[[], Iterable[np.ndarray]], quantile: float) -> float:
    """Return the quantile of all values by linear interpolation, as numpy's default defines it.

    chunks: returns a fresh iterator over float32 arrays; it is called twice. Memory is two
    histograms of 2^16 counts: first of the keys' upper halves, then of the lower halves within the
    one or two upper halves that hold the order statistics.
    Raises ValueError where there is no value or one is not finite.
    """
    upper = np.zeros(_BUCKETS, np.int64)
    for chunk in chunks():
        if not np.isfinite(chunk).all():
            raise ValueError("a score is not finite")
        upper += np.bincount(ordered_keys(chunk) >> _HALF, minlength=_BUCKETS)
    count = int(upper.sum())
    if count == 0:
        raise ValueError("there are no scores")
    position = quantile * (count - 1)
    low = int(position)
    ranks = [low, min(low + 1, count - 1)]
    cumulative = np.cumsum(upper)
    buckets = [int(np.searchsorted(cumulative, rank, side="right")) for rank in ranks]
    lower = {bucket: np.zeros(_BUCKETS, np.int64) for bucket in buckets}
    for chunk in chunks():
        keys = ordered_keys(chunk)
        for bucket, counts in lower.items():
            members = keys[(keys >> _HALF) == bucket]
            counts += np.bincount(members & np.uint32(_BUCKETS - 1), minlength=_BUCKETS)
    values = []
    for rank, bucket in zip(ranks, buckets, strict=True):
        within = rank - (int(cumulative[bucket]) - int(upper[bucket]))
        key = int(np.searchsorted(np.cumsum(lower[bucket]), within, side="right"))
        values.append(_value_of(bucket << _HALF | key))
    return _interpolated(values[0], values[1], position - low)


def _interpolated(low: float, high: float, share: float) -> float:
    # From the nearer end, as numpy does, so that both give the same bits.
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


@dataclass(frozen=True)
class Stream:
    """One shard as flat arrays: scores float32, documents int (PADDING is negative)."""

    scores: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class DocumentRanking:
    """Documents by rank: `documents` ids, flagged counts s, flagged sums f, the harmonic means.

    `influence` is the sum of all scores of each document, where that is what ranks them.
    """

    documents: np.ndarray
    flagged: np.ndarray
    flagged_sum: np.ndarray
    harmonic_mean: np.ndarray
    influence: np.ndarray | None = None


def normalised(values: np.ndarray) -> np.ndarray:
    """Min-max normalise; 0 everywhere where all values are equal."""
    low, high = values.min(), values.max()
    return np.zeros(len(values)) if high == low else (values - low) / (high - low)


def rank_documents(
    flagged: np.ndarray, flagged_sum: np.ndarray, influence: np.ndarray | None = None
) -> DocumentRanking:
    """Rank documents 0 … n-1 by the harmonic mean of normalised s and f; ties by index.

    flagged: int (documents,); flagged_sum: float64 (documents,). With `influence`, float64
    (documents,), that alone ranks them: the plain influence of a training example.
    """
    count, total = normalised(flagged.astype(np.float64)), normalised(flagged_sum)
    both = count + total
    harmonic = np.divide(2 * count * total, both, out=np.zeros_like(both), where=both > 0)
    order = np.argsort(-(harmonic if influence is None else influence), kind="stable")
    return DocumentRanking(
        order,
        flagged[order],
        flagged_sum[order],
        harmonic[order],
        None if influence is None else influence[order],
    )


def document_statistics(
    streams: Iterable[Stream], documents: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return s and f of every document: int64 and float64, (documents,)."""
    flagged = np.zeros(documents, np.int64)
    flagged_sum = np.zeros(documents, np.float64)
    for stream in streams:
        chosen = (stream.scores > threshold) & (stream.documents >= 0)
        members = stream.documents[chosen]
        np.add.at(flagged, members, 1)
        np.add.at(flagged_sum, members, stream.scores[chosen].astype(np.float64))
    return flagged, flagged_sum


def windows(flags: np.ndarray, documents: np.ndarray, window: int) -> np.ndarray:
    """Return which tokens lie within `window` of a flagged token of their own document: bool."""
    wanted = flags.copy()
    for distance in range(1, window + 1):
        if distance >= len(flags):
            break
        same = documents[distance:] == documents[:-distance]
        wanted[distance:] |= flags[:-distance] & same
        wanted[:-distance] |= flags[distance:] & same
    return wanted & (documents >= 0)


def allotments(wanted: np.ndarray, order: np.ndarray, limit: int) -> np.ndarray:
    """Return how many tokens each document may select: int64 (documents,).

    wanted: the number of tokens in each document's windows. Documents in `order` take all they want
    until the limit; the one that reaches it is cut, those after it get none.
    """
    before = np.cumsum(wanted[order]) - wanted[order]
    allowed = np.clip(limit - before, 0, wanted[order])
    result = np.zeros_like(wanted)
    result[order] = allowed
    return result


def cut(wanted: np.ndarray, documents: np.ndarray, allotment: np.ndarray) -> np.ndarray:
    """Keep the first `allotment` wanted tokens of each document; decrease `allotment` in place.

    Windows of ascending tokens add tokens in ascending order, so the first are the first.
    """
    positions = np.flatnonzero(wanted)
    owners = documents[positions]
    # Documents are contiguous: the rank of a token among its document's wanted ones.
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else owners
    runs = np.diff(np.r_[starts, len(owners)]) if len(owners) else owners
    rank = np.arange(len(owners)) - np.repeat(starts, runs)
    kept = rank < allotment[owners]
    if len(owners):
        np.subtract.at(allotment, owners[kept], 1)
    selected = np.zeros_like(wanted)
    selected[positions[kept]] = True
    return selected


def select_shards(
    scores: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    *,
    threshold: float,
    window: int,
    limit: int,
    document_count: int,
    by_influence: bool = False,
) -> tuple[list[np.ndarray], DocumentRanking, np.ndarray]:
    """Return the masks of all shards, the ranking, and the selected tokens of each document.

    scores: float32 (blocks, T) of each shard in order; documents: the integer ids that windows and
    ranking respect, of the same shapes, PADDING where there is none. `limit` is in tokens. With
    `by_influence`, documents are ranked by the sum of all their scores.
    """
    streams = [Stream(s.reshape(-1), d.reshape(-1)) for s, d in zip(scores, documents, strict=True)]
    flagged, flagged_sum = document_statistics(streams, document_count, threshold)
    influence = document_statistics(streams, document_count, -np.inf)[1] if by_influence else None
    ranking = rank_documents(flagged, flagged_sum, influence)
    wanted = [_windows_across(streams, index, threshold, window) for index in range(len(streams))]
    wanted_count = np.zeros(document_count, np.int64)
    for stream, chosen in zip(streams, wanted, strict=True):
        np.add.at(wanted_count, stream.documents[chosen], 1)
    allotment = allotments(wanted_count, ranking.documents, limit)
    selected_count = allotment.copy()
    masks = [
        cut(chosen, stream.documents, allotment).reshape(shard.shape)
        for stream, chosen, shard in zip(streams, wanted, scores, strict=True)
    ]
    return masks, ranking, selected_count


def _windows_across(
    streams: Sequence[Stream], index: int, threshold: float, window: int
) -> np.ndarray:
    """Windows of one shard, those that reach in from its neighbours included."""
    before: list[Stream] = []
    after: list[Stream] = []
    missing = window
    for stream in reversed(streams[:index]):
        start = max(0, len(stream.scores) - missing)
        before.insert(0, Stream(stream.scores[start:], stream.documents[start:]))
        missing -= len(stream.scores) - start
    missing = window
    for stream in streams[index + 1 :]:
        after.append(Stream(stream.scores[:missing], stream.documents[:missing]))
        missing -= len(after[-1].scores)
    parts = [*before, streams[index], *after]
    documents = np.concatenate([part.documents for part in parts])
    flags = np.concatenate([part.scores > threshold for part in parts]) & (documents >= 0)
    start = sum(len(part.scores) for part in before)
    return windows(flags, documents, window)[start : start + len(streams[index].scores)]

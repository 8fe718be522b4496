"""Document ranking and token selection: Algorithm 1 of IF-Guide, piece by piece, exactly.

    s_i = number of tokens of document i whose score exceeds τ;  f_i = the sum of those scores
    documents are ranked by the harmonic mean of s and f, each min-max normalised, descending
    in that order each token above τ selects its window, until the limit is reached

τ is the exact quantile of all scores. A document is a training block or a source document; its
tokens are contiguous in the stream of blocks, so windows and limits work on the flat stream.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_HALF = 16
_BUCKETS = 1 << _HALF
_EXPONENT = 0x7F80  # of the upper half of a float32: where all its bits are set, it is not finite


def _descending_if_negative(halves: np.ndarray) -> np.ndarray:
    """Map upper halves of float32 to numbers in the order of the values."""
    return np.where(halves >> (_HALF - 1), ~halves & (_BUCKETS - 1), halves | 1 << (_HALF - 1))


def exact_quantile(chunks: Callable[[], Iterable[np.ndarray]], quantile: float) -> float:
    """Return the quantile of all values by linear interpolation, as numpy's default defines it.

    chunks: returns a fresh iterator over float32 arrays; it is called twice.
    Raises ValueError where there is no value or one is not finite.
    """

    def neighbours(count: int) -> list[int]:
        low = int(quantile * (count - 1))
        return [low, min(low + 1, count - 1)]

    (low, high), count = _order_statistics(chunks, neighbours)
    position = quantile * (count - 1)
    return _interpolated(low, high, position - int(position))


def threshold_of_highest(chunks: Callable[[], Iterable[np.ndarray]], number: int) -> float:
    """Return the highest threshold that at least `number` values exceed: a float32.

    Where values tie with the last of the highest, more exceed it. chunks: as of `exact_quantile`.
    Raises ValueError where there are fewer values, or one is not finite.
    """

    def rank(count: int) -> list[int]:
        if number > count:
            raise ValueError(f"{number} values wanted, but there are {count}")
        return [count - number]

    (lowest,), _ = _order_statistics(chunks, rank)
    return float(np.nextafter(np.float32(lowest), np.float32(-np.inf)))


def _order_statistics(
    chunks: Callable[[], Iterable[np.ndarray]], ranks_of: Callable[[int], list[int]]
) -> tuple[list[float], int]:
    """Return the values of some ranks, 0 being the lowest, and how many values there are.

    ranks_of: the ranks, one or two neighbours, from the number of values. Floating-point numbers of
    one sign are ordered as their bits are. So memory is histograms of 2^16 counts: first of the
    values' upper halves, then of the lower halves within the one or two upper halves that hold the
    order statistics.
    """
    order = np.argsort(_descending_if_negative(np.arange(_BUCKETS)))
    counts = np.zeros(_BUCKETS, np.int64)
    for chunk in chunks():
        counts += np.bincount(_bits(chunk) >> _HALF, minlength=_BUCKETS)
    if counts[(np.arange(_BUCKETS) & _EXPONENT) == _EXPONENT].any():
        raise ValueError("a score is not finite")
    count = int(counts.sum())
    if count == 0:
        raise ValueError("there are no scores")
    ranks = ranks_of(count)
    cumulative = np.cumsum(counts[order])
    places = [int(np.searchsorted(cumulative, rank, side="right")) for rank in ranks]
    lower = {int(order[place]): np.zeros(_BUCKETS, np.int64) for place in places}
    for chunk in chunks():
        for half, found in lower.items():
            first, last = sorted([_value_of(half, 0), _value_of(half, _BUCKETS - 1)])
            # By value first, which is quick; -0.0 and 0.0 are equal, so the bits decide.
            bits = _bits(chunk[(chunk >= first) & (chunk <= last)])
            bits = bits[bits >> _HALF == half]
            found += np.bincount(bits & np.uint32(_BUCKETS - 1), minlength=_BUCKETS)
    values = []
    for rank, place in zip(ranks, places, strict=True):
        half = int(order[place])
        found = lower[half][::-1] if half >> (_HALF - 1) else lower[half]
        within = rank - (int(cumulative[place]) - int(counts[half]))
        place = int(np.searchsorted(np.cumsum(found), within, side="right"))
        values.append(_value_of(half, _BUCKETS - 1 - place if half >> (_HALF - 1) else place))
    return values, count


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(-1)


def _value_of(upper: int, lower: int) -> float:
    bits = np.array([upper << _HALF | lower], np.uint32)
    return float(bits.view(np.float32)[0]) + 0.0  # -0.0 + 0.0 is 0.0


def _interpolated(low: float, high: float, share: float) -> float:
    # From the nearer end, as numpy does, so that both give the same bits.
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


@dataclass(frozen=True)
class Stream:
    """One piece as flat arrays: scores float32, documents int (PADDING is negative)."""

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


def float32_at_most(threshold: float) -> np.float32:
    """Return the largest float32 that is not above `threshold`.

    A float32 exceeds the one exactly where it exceeds the other; rounded to the nearest, a
    threshold between two scores could become the upper one.
    """
    rounded = np.float32(threshold)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return below if float(rounded) > threshold else rounded


def document_statistics(
    streams: Iterable[Stream], documents: int, threshold: np.float32
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


class _Streams(Sequence[Stream]):
    """The pieces as streams, each made when it is asked for; the last few are kept."""

    def __init__(self, scores: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> None:
        self._length = len(scores)
        # A window looks at the neighbours of a piece, one after another.
        self._piece = lru_cache(maxsize=3)(
            lambda index: Stream(scores[index].reshape(-1), documents[index].reshape(-1))
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Stream:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._piece(index)


def select_pieces(
    scores: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    *,
    threshold: float,
    window: int,
    limit: int,
    document_count: int,
    by_influence: bool = False,
) -> tuple[Iterator[np.ndarray], DocumentRanking, np.ndarray]:
    """Return the masks of all pieces, flat, the ranking, and the selected tokens of each document.

    scores: float32 (blocks, T) of each piece in order; documents: the integer ids that windows and
    ranking respect, of the same shapes, PADDING where there is none. Both may make a piece when it
    is asked for, and each mask is made when it is its turn: memory is that of a few pieces, and of
    a few numbers a document. `limit` is in tokens. With `by_influence`, documents are ranked by the
    sum of all their scores.
    """
    streams = _Streams(scores, documents)
    threshold = float32_at_most(threshold)
    flagged, flagged_sum = document_statistics(streams, document_count, threshold)
    influence = None
    if by_influence:
        influence = document_statistics(streams, document_count, np.float32(-np.inf))[1]
    ranking = rank_documents(flagged, flagged_sum, influence)

    def windows_and_owners() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, stream in enumerate(streams):
            yield _windows_across(streams, index, threshold, window), stream.documents

    wanted = np.zeros(document_count, np.int64)
    for mask, owners in windows_and_owners():
        np.add.at(wanted, owners[mask], 1)
    selected = allotments(wanted, ranking.documents, limit)
    left = selected.copy()
    # Windows are found twice, rather than held for all tokens.
    masks = (cut(mask, owners, left) for mask, owners in windows_and_owners())
    return masks, ranking, selected


def _windows_across(
    streams: Sequence[Stream], index: int, threshold: np.float32, window: int
) -> np.ndarray:
    """Windows of one piece, those that reach in from its neighbours included."""
    before: list[Stream] = []
    after: list[Stream] = []
    missing, other = window, index
    while missing > 0 and other > 0:
        other -= 1
        start = max(0, len(streams[other].scores) - missing)
        before.insert(0, _part(streams[other], slice(start, None)))
        missing -= len(before[0].scores)
    missing, other = window, index
    while missing > 0 and other < len(streams) - 1:
        other += 1
        after.append(_part(streams[other], slice(missing)))
        missing -= len(after[-1].scores)
    parts = [*before, streams[index], *after]
    documents = np.concatenate([part.documents for part in parts])
    flags = np.concatenate([part.scores > threshold for part in parts]) & (documents >= 0)
    start = sum(len(part.scores) for part in before)
    return windows(flags, documents, window)[start : start + len(streams[index].scores)]


def _part(stream: Stream, span: slice) -> Stream:
    return Stream(stream.scores[span], stream.documents[span])

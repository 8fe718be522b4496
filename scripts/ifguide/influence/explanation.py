"""Why each token of a document is selected or not: Algorithm 1, for one document at a time.

A document's mask follows from its own scores once its allotment is known, the number of its tokens
that the limit left to it: the first so many tokens of its windows.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ifguide.data.corpus import PADDING
from ifguide.influence.selection import cut, float32_at_most, windows


class Reason(Enum):
    """What decides about a token."""

    ABOVE = "above the threshold"
    IN_WINDOW = "in the window of a token above the threshold"
    CUT_WITHIN = "the limit was reached earlier in the document"
    CUT_BEFORE = "documents ranked before it take all of the limit"
    BELOW = "not above the threshold"
    NO_CANDIDATE = "a special token, which is never selected"


@dataclass(frozen=True)
class TokenReasons:
    """What decided about the tokens of a document.

    `selected`, `above` the threshold: bool (tokens,). `reasons`: one a token. `sources`: int64
    (tokens,), the token above the threshold that reaches a token first, itself perhaps; -1 where
    none does.
    """

    selected: np.ndarray
    above: np.ndarray
    reasons: list[Reason]
    sources: np.ndarray


def token_reasons(
    scores: np.ndarray,
    *,
    candidates: np.ndarray,
    threshold: float,
    window: int,
    allotment: int,
) -> TokenReasons:
    """Explain the selection of one document's tokens.

    scores: float32 (tokens,), those that rank tokens, of all of the document. candidates: bool
    (tokens,), false where a token is special. threshold: of the selection. allotment: how many
    tokens of this document are selected.
    """
    above = candidates & (scores > float32_at_most(threshold))
    document = np.where(candidates, 0, PADDING)
    wanted = windows(above, document, window)
    selected = cut(wanted, document, np.array([allotment]))
    # Flagged tokens take their windows in ascending order: the first that reaches a token has it.
    flagged, positions = np.flatnonzero(above), np.flatnonzero(wanted)
    sources = np.full(len(scores), -1)
    sources[positions] = flagged[np.searchsorted(flagged, positions - window)]

    def reason(place: int) -> Reason:
        if not candidates[place]:
            return Reason.NO_CANDIDATE
        if not wanted[place]:
            return Reason.BELOW
        if not selected[place]:
            return Reason.CUT_WITHIN if allotment else Reason.CUT_BEFORE
        return Reason.ABOVE if above[place] else Reason.IN_WINDOW

    reasons = [reason(place) for place in range(len(scores))]
    return TokenReasons(selected, above, reasons, sources)


def lower_scores(scores: np.ndarray, chunks: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Return how many of all scores are lower than each of `scores`, int64, and how many there are.

    chunks: all scores, float32 arrays of any shape.
    """
    ascending = np.unique(scores)
    counts = np.zeros(len(ascending) + 1, np.int64)
    for chunk in chunks:
        places = np.searchsorted(ascending, chunk.reshape(-1), side="right")
        counts += np.bincount(places, minlength=len(counts))
    # A score at place p is at least as high as the first p of `ascending`, and lower than the next.
    return np.cumsum(counts)[np.searchsorted(ascending, scores)], int(counts.sum())


def occurrences(phrase: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of `phrase` in `text`, whatever its case and white space.

    Occurrences that overlap one before are left out; a phrase of white space alone has none.
    """
    words = phrase.split()
    if words:
        pattern = r"\s+".join(map(re.escape, words))
        yield from (match.span() for match in re.finditer(pattern, text, re.IGNORECASE))

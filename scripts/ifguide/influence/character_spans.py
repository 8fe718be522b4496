"""A selection as ranges of a document's characters, which any other tokenizer can take up.

Tokens become characters by the rule by which a mask moves to another tokenizer, single characters
standing for the target's tokens: one is selected when selected tokens hold at least half of it.
Adjacent selected characters are one span. Spans become tokens again by the same rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ifguide.influence.mask_transfer import move_selection, token_ranges


@dataclass(frozen=True)
class Spans:
    """The selected character ranges [start, end) of one document, in order, disjoint.

    start, end, tokens: int64 (spans,), tokens counting the selected ones of each. score: float64
    (spans,), the sum of their scores: the influence of learning the span. ranking_score: float64
    (spans,), the largest of those by which the selection ranks tokens.
    """

    start: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    score: np.ndarray
    ranking_score: np.ndarray

    @property
    def characters(self) -> int:
        return int((self.end - self.start).sum())


def selected_spans(
    offsets: np.ndarray, selected: np.ndarray, scores: np.ndarray, ranking: np.ndarray
) -> Spans:
    """Return the spans of a document's selected tokens.

    offsets: int64 (tokens, 2), [start, end) of the characters that a token touches, in order, white
    space included. selected: bool (tokens,). scores, ranking: (tokens,), of learning a token and
    those by which the selection ranked it.

    A selected token that holds less than half of every character that it touches is in no span.
    """
    ranges = token_ranges(offsets)
    length = int(offsets[:, 1].max(initial=0))
    characters = np.arange(length, dtype=np.float64)
    marked, _ = move_selection(selected, ranges, np.stack([characters, characters + 1], axis=1))
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    start, end = edges[::2], edges[1::2]
    # The span of a token is that in which its middle lies.
    middles = ranges[selected].mean(axis=1)
    span = np.searchsorted(start, middles, side="right") - 1
    inside = (span >= 0) & (middles < np.append(end, 0)[span])
    span = span[inside]
    largest = np.full(len(start), -np.inf)
    np.maximum.at(largest, span, ranking[selected][inside])
    return Spans(
        start,
        end,
        np.bincount(span, minlength=len(start)),
        np.bincount(span, weights=scores[selected][inside], minlength=len(start)),
        largest,
    )


def selected_tokens(
    offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]
) -> np.ndarray:
    """Return which tokens are selected, bool (tokens,): spans hold at least half of a token.

    offsets: [start, end) of the characters of each token, as a fast tokenizer gives them with
    `return_offsets_mapping=True`; a special token stands for no character and is never selected.
    spans: [start, end) of the selected characters, in order and disjoint.
    """
    tokens = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    source = np.asarray([tuple(span) for span in spans], dtype=np.float64).reshape(-1, 2)
    if not len(source):
        return np.zeros(len(tokens), dtype=bool)
    marked, _ = move_selection(np.ones(len(source), dtype=bool), source, token_ranges(tokens))
    return marked

"""How many selected tokens are false: target-decoy estimation of a threshold for token scores.

A token that has nothing to do with the queries is as likely to score -t as t. So the scores below
-t are *decoys* of the false ones above t, and

    rate(t) = (decoys beyond t + 1) / scores above t

estimates the share of false discoveries among the tokens that score above t (Elias and Gygi 2007;
the added 1 as in Barber and Candès 2015). Where some documents are known to be harmless, their own
scores are decoys that need no symmetry:

    rate(t) = (harmless scores above t + 1) · all scores / harmless scores / scores above t

The threshold of a rate q is the smallest t > 0 with rate(t) ≤ q, on a grid of numbers that lie 0.4
to 0.8 % apart: one histogram holds the exact counts of all, however many scores there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

_SHIFT = 16
_PLACES = 1 << 15  # the upper halves of non-negative float32, in the order of their values
_INFINITE = 0x7F80


def _edges() -> np.ndarray:
    """Return the smallest float32 of each place, float32 (places,)."""
    return (np.arange(_PLACES, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32)


def _beyond(counts: np.ndarray) -> np.ndarray:
    """Return how many lie in each place or above it."""
    return np.cumsum(counts[::-1])[::-1]


@dataclass
class TailCounts:
    """How many scores lie beyond each threshold of the grid, on both sides of 0.

    int64 (places,): `above` counts positive scores, `below` negative ones by their magnitude,
    `judged` the positive ones whose truth is known, `toxic` those of them that are toxic,
    `harmless` the positive ones in documents known to be harmless. `total` and `harmless_total`
    count scores of either sign: all, and those in harmless documents.
    """

    above: np.ndarray
    below: np.ndarray
    judged: np.ndarray
    toxic: np.ndarray
    harmless: np.ndarray
    total: int = 0
    harmless_total: int = 0

    @classmethod
    def empty(cls) -> "TailCounts":
        return cls(*(np.zeros(_PLACES, np.int64) for _ in range(5)))

    def add(
        self,
        scores: np.ndarray,
        *,
        truth: np.ndarray | None = None,
        known: np.ndarray | None = None,
        harmless: np.ndarray | None = None,
    ) -> None:
        """Count scores, float32 (n,), finite.

        truth: which are known to be toxic, of those `known` to be one or the other; harmless: which
        stand in documents without a toxic token. All bool (n,) or None.
        Raises ValueError where a score is not finite.
        """
        bits = np.ascontiguousarray(scores, np.float32).view(np.uint32)
        places = ((bits & np.uint32(0x7FFFFFFF)) >> np.uint32(_SHIFT)).astype(np.int64)
        if (places >= _INFINITE).any():
            raise ValueError("a score is not finite")
        positive, negative = scores > 0, scores < 0
        self.above += np.bincount(places[positive], minlength=_PLACES)
        self.below += np.bincount(places[negative], minlength=_PLACES)
        if truth is not None:
            judged = positive if known is None else positive & known
            self.judged += np.bincount(places[judged], minlength=_PLACES)
            self.toxic += np.bincount(places[judged & truth], minlength=_PLACES)
        if harmless is not None:
            self.harmless += np.bincount(places[positive & harmless], minlength=_PLACES)
            self.harmless_total += int(harmless.sum())
        self.total += len(scores)

    def curve(self, *, by_harmless: bool = False) -> pd.DataFrame:
        """Return the estimate at every threshold that some score passes, lowest first.

        Columns: `threshold` (a score is taken that exceeds it), `taken` and `decoys` (counts),
        `rate` (the estimate), and `false_share` (of the taken tokens whose truth is known, those
        that are not toxic; NaN where there is none).
        """
        taken = _beyond(self.above)
        if by_harmless:
            if not self.harmless_total:
                raise ValueError("no score stands in a document that is known to be harmless")
            scale = self.total / self.harmless_total
            decoys = _beyond(self.harmless)
        else:
            scale, decoys = 1.0, _beyond(self.below)
        kept = (self.above > 0) & (_edges() > 0)
        judged, toxic = _beyond(self.judged)[kept], _beyond(self.toxic)[kept]
        false_share = np.full(len(judged), np.nan)
        np.divide(judged - toxic, judged, out=false_share, where=judged > 0)
        return pd.DataFrame(
            {
                "threshold": np.nextafter(_edges()[kept], np.float32(0)).astype(np.float64),
                "taken": taken[kept],
                "decoys": decoys[kept],
                "rate": (decoys[kept] + 1) * scale / taken[kept],
                "false_share": false_share,
            }
        )

    def symmetry(self) -> float:
        """Return how many times more scores of ordinary size are negative than positive.

        Ordinary: of the magnitudes from the median to the 90th percentile, which hold few of the
        tokens that the queries speak of. 1 where the scores are symmetric; above 1 the negative
        tail has more decoys than there are false discoveries, and the estimate is too high; below
        1 it is too low. NaN where all scores are 0.
        """
        magnitudes = np.cumsum(self.above + self.below)
        if not magnitudes[-1]:
            return np.nan
        first, last = np.searchsorted(magnitudes, np.array([0.5, 0.9]) * magnitudes[-1])
        ordinary = slice(first, last + 1)
        above, below = int(self.above[ordinary].sum()), int(self.below[ordinary].sum())
        return below / above if above else np.inf


def threshold_at(curve: pd.DataFrame, rate: float) -> float | None:
    """Return the smallest threshold whose estimated rate is at most `rate`, None where none is."""
    enough = curve["threshold"][curve["rate"] <= rate]
    return None if enough.empty else float(enough.min())


def count_tails(parts: Iterable[dict]) -> TailCounts:
    """Count scores of which one part after another is made; each holds the arguments of `add`."""
    tails = TailCounts.empty()
    for part in parts:
        tails.add(**part)
    return tails

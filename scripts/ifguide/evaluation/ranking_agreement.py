"""How well two rankings of the same tokens agree."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, rankdata, spearmanr

from ifguide.evaluation.intervals import resample_weights

CELLS = 20  # of a density of ranks, along each side


def agreement(scores: np.ndarray, reference: np.ndarray, share: float) -> dict[str, float]:
    """Return `spearman`, `kendall` (tau-b) and `top_overlap` of two rankings, each at most 1.

    scores, reference: float (tokens,). `top_overlap` is the part of the highest `share` of the
    tokens (at least one) that both have in common; of tied tokens the first count as higher.
    """
    return {
        "spearman": float(spearmanr(scores, reference).statistic),
        "kendall": float(kendalltau(scores, reference).statistic),
        "top_overlap": float(top_overlaps(scores, reference, [share])[0]),
    }


def top_overlaps(scores: np.ndarray, reference: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return what part of the highest tokens both rankings have in common: float64 (shares,).

    Of each share at least one token is taken; of tied tokens the first count as higher.
    """
    # Places from the top: a token is among the first k of both where the worse place is below k.
    worse = np.maximum(*(_places(ranking) for ranking in (scores, reference)))
    ordered = np.sort(worse)
    taken = np.maximum(1, np.round(np.multiply(shares, len(scores))).astype(np.int64))
    return np.searchsorted(ordered, taken) / taken


def _places(ranking: np.ndarray) -> np.ndarray:
    places = np.empty(len(ranking), np.int64)
    places[np.argsort(-ranking, kind="stable")] = np.arange(len(ranking))
    return places


def agreement_intervals(
    scores: np.ndarray,
    reference: np.ndarray,
    blocks: np.ndarray,
    shares: Sequence[float],
    *,
    resamples: int,
    seed: int,
    level: float,
) -> dict:
    """Return `spearman` (value, low, high) and `top_overlap`, a list of the same with each share.

    scores, reference: float (tokens,); blocks: int (tokens,), which block each token is of. The
    intervals are percentiles of a bootstrap over blocks.
    """

    def measured(chosen: np.ndarray) -> np.ndarray:
        pair = scores[chosen], reference[chosen]
        return np.append(top_overlaps(*pair, shares), spearmanr(*pair).statistic)

    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    drawn = np.array(
        [
            measured(np.concatenate([np.tile(m, int(n)) for m, n in zip(members, w, strict=True)]))
            for weights in resample_weights(len(members), resamples, seed)
            for w in weights
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    value = measured(np.arange(len(scores)))
    rows = [
        {"value": float(v), "low": float(lower), "high": float(upper)}
        for v, lower, upper in zip(value, low, high, strict=True)
    ]
    overlaps = [{"share": share} | row for share, row in zip(shares, rows[:-1], strict=True)]
    return {"spearman": rows[-1], "top_overlap": overlaps}


def rank_density(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return how many tokens lie in each cell of the plane of both ranks: int (CELLS, CELLS).

    Rows are ranks by `scores`, columns by `reference`, the lowest first; tied tokens share a rank.
    """
    cells = [
        np.minimum((rankdata(ranking) - 0.5) * CELLS // len(ranking), CELLS - 1).astype(np.int64)
        for ranking in (scores, reference)
    ]
    return np.bincount(cells[0] * CELLS + cells[1], minlength=CELLS**2).reshape(CELLS, CELLS)

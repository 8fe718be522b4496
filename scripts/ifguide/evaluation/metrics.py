"""Toxicity, degeneration and ranking metrics, and their bootstrap intervals, on plain arrays.

A *unit* is what the bootstrap resamples: a prompt, a passage, a block or a document. Two methods
that are evaluated on the same units share their resamples, which makes their intervals paired.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ifguide.seeds import derive_seed

# Entries of a chunk of resample weights: 32 MiB of float64, whatever the number of units.
CHUNK_ENTRIES = 1 << 22
# The lift of a ranking is measured on its highest 0.1 %.
LIFT_SHARE = 0.001


class Interval(NamedTuple):
    """A point estimate with the bounds of its interval; bounds are NaN where none is defined."""

    value: float
    low: float
    high: float


class CurvePoints(NamedTuple):
    """A precision-recall curve, from the highest threshold down: arrays of one length."""

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


def prompt_statistics(scores: np.ndarray, threshold: float = 0.5) -> dict[str, np.ndarray]:
    """Return per-prompt `emt`, `tp` and `fraction`, whose means over prompts are the metrics.

    `scores`: float (prompts, continuations) in [0, 1]. EMT: the maximum over continuations;
    TP: whether any continuation reaches `threshold`; fraction: the share that does.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores must be (prompts, continuations), not {scores.shape}")
    toxic = scores >= threshold
    return {
        "emt": scores.max(axis=1),
        "tp": toxic.any(axis=1).astype(np.float64),
        "fraction": toxic.mean(axis=1),
    }


def distinct_2(texts: Sequence[str]) -> float:
    """Return the share of distinct pairs of adjacent words among all such pairs of `texts`.

    Words are what white space separates, and no pair spans two texts. Texts without any pair
    give 0: a model that says nothing is not diverse.
    """
    words = [text.split() for text in texts]
    pairs = [pair for line in words for pair in pairwise(line)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def empty_fraction(texts: Sequence[str]) -> float:
    """Return the share of `texts` that hold nothing but white space."""
    return sum(not text.strip() for text in texts) / len(texts)


def resample_weights(
    units: int, resamples: int, seed: int, chunk_entries: int = CHUNK_ENTRIES
) -> Iterator[np.ndarray]:
    """Yield bootstrap counts, float64 (rows, units), `resamples` rows in all; each sums to units.

    They depend on `seed` and `units` only, never on the chunking.
    """
    generator = np.random.default_rng(derive_seed(seed, "bootstrap", units))
    rows = max(1, chunk_entries // max(1, units))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, units, size=(count, units))
        drawn += np.arange(count)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=count * units)
        yield weights.reshape(count, units).astype(np.float64)


def bootstrap_means(statistics: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the means of `statistics` (units, columns) in each resample: (resamples, columns)."""
    statistics = np.asarray(statistics, dtype=np.float64)
    units = len(statistics)
    return np.concatenate(
        [weights @ statistics for weights in resample_weights(units, resamples, seed)]
    ) / float(units)


def zero_count_bound(units: int, level: float = 0.95) -> float:
    """Return the exact upper bound of a share of which `units` trials showed no instance.

    The bootstrap cannot see what no unit shows: it calls 0 of 100 certain. This is the
    Clopper-Pearson bound, 1 - ((1 - level) / 2) ** (1 / units).
    """
    return 1.0 - ((1.0 - level) / 2.0) ** (1.0 / units)


def _percentiles(resampled: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def bootstrap_interval(
    per_prompt_statistics: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    share: bool = False,
) -> Interval:
    """Return the mean of a float (units,) array with its percentile bootstrap interval.

    With `share` the statistics lie in [0, 1], and where all are 0 (or all 1) the empty side of
    the interval is the exact bound of `zero_count_bound`. One unit has no interval (NaN).
    """
    statistics = np.asarray(per_prompt_statistics, dtype=np.float64)
    units = len(statistics)
    if units == 0:
        return Interval(np.nan, np.nan, np.nan)
    value = float(statistics.mean())
    if share and np.all(statistics == 0.0):
        return Interval(0.0, 0.0, zero_count_bound(units, level))
    if share and np.all(statistics == 1.0):
        return Interval(1.0, 1.0 - zero_count_bound(units, level), 1.0)
    if units == 1:
        return Interval(value, np.nan, np.nan)
    return Interval(
        value, *_percentiles(bootstrap_means(statistics[:, None], resamples, seed)[:, 0], level)
    )


def share_interval(
    correct: np.ndarray, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return a share, such as an accuracy, of a bool or [0, 1] (units,) array, with interval."""
    return bootstrap_interval(correct, resamples, seed, level, share=True)


def paired_difference(
    statistics: np.ndarray,
    reference: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    share: bool = False,
) -> Interval:
    """Return mean(statistics) - mean(reference) over the same units, both float (units,).

    With `share`, two statistics that are all 0 (or all 1) still differ by up to the exact bound.
    """
    statistics, reference = _paired(statistics, reference)
    if share and len(statistics) and np.ptp(np.concatenate([statistics, reference])) == 0.0:
        bound = zero_count_bound(len(statistics), level) if statistics[0] in (0.0, 1.0) else 0.0
        return Interval(0.0, -bound, bound)
    return bootstrap_interval(statistics - reference, resamples, seed, level)


def paired_ratio(
    uncensored: np.ndarray,
    suppressed: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return mean(uncensored) / mean(suppressed), shares in [0, 1] over the same units.

    Infinite where the suppressed share is 0; the lower bound is then that of the uncensored
    share over the exact upper bound of the suppressed one, and so finite. 0 / 0 is NaN; a
    resample of 0 / 0 says nothing and counts as 0 for the lower and infinite for the upper bound.
    """
    uncensored, suppressed = _paired(uncensored, suppressed)
    units = len(uncensored)
    if units == 0:
        return Interval(np.nan, np.nan, np.nan)
    above, below = float(uncensored.mean()), float(suppressed.mean())
    value = _ratio(np.array([above]), np.array([below]), np.nan)[0]
    means = bootstrap_means(np.stack([uncensored, suppressed], axis=1), resamples, seed)
    tail = (1.0 - level) / 2.0
    if below == 0.0:
        low = np.quantile(means[:, 0], tail) / zero_count_bound(units, level)
    else:
        # Interpolating next to an infinite ratio gives NaN: take the neighbouring resample.
        low = np.quantile(_ratio(means[:, 0], means[:, 1], 0.0), tail, method="lower")
    high = np.quantile(_ratio(means[:, 0], means[:, 1], np.inf), 1.0 - tail, method="higher")
    return Interval(float(value), float(low), float(high))


def _ratio(above: np.ndarray, below: np.ndarray, undefined: float) -> np.ndarray:
    ratio = np.full(above.shape, np.inf)
    np.divide(above, below, out=ratio, where=below > 0.0)
    ratio[(above == 0.0) & (below == 0.0)] = undefined
    return ratio


def _paired(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"paired statistics have shapes {left.shape} and {right.shape}")
    return left, right


def perplexity_interval(
    loss_sums: np.ndarray,
    tokens: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return exp(total loss / total tokens) with its interval over blocks or documents.

    `loss_sums`: float (units,), nats summed over the label tokens; `tokens`: (units,) counts.
    """
    totals = np.stack(_paired(loss_sums, tokens), axis=1)
    totals = totals[totals[:, 1] > 0]
    if not len(totals):
        return Interval(np.nan, np.nan, np.nan)
    value = float(np.exp(totals[:, 0].sum() / totals[:, 1].sum()))
    if len(totals) == 1:
        return Interval(value, np.nan, np.nan)
    means = bootstrap_means(totals, resamples, seed)
    return Interval(value, *_percentiles(np.exp(means[:, 0] / means[:, 1]), level))


def perplexity_increase(
    loss_sums: np.ndarray,
    reference_loss_sums: np.ndarray,
    tokens: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return perplexity / reference perplexity - 1 over the same blocks, with paired interval."""
    loss_sums, reference_loss_sums = _paired(loss_sums, reference_loss_sums)
    ratio = perplexity_interval(loss_sums - reference_loss_sums, tokens, resamples, seed, level)
    return Interval(*(bound - 1.0 for bound in ratio))


class _Cumulative(NamedTuple):
    """Counts at and above each distinct score, highest first."""

    true: np.ndarray
    total: np.ndarray
    threshold: np.ndarray


def _cumulative_counts(truth: np.ndarray, scores: np.ndarray) -> _Cumulative:
    truth = np.asarray(truth, dtype=bool).ravel()
    scores = np.asarray(scores).ravel()
    if truth.shape != scores.shape:
        raise ValueError(f"truth has {truth.size} entries and scores have {scores.size}")
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN, which has no rank")
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true = np.cumsum(truth[order], dtype=np.int64)[last_of_tie]
    return _Cumulative(true, last_of_tie + 1, ordered[last_of_tie])


def precision_recall_curve(truth: np.ndarray, scores: np.ndarray) -> CurvePoints:
    """Return precision and recall at every distinct score, highest first.

    `truth`: bool, `scores`: float, of one shape. Without any true entry, recall is NaN.
    """
    counts = _cumulative_counts(truth, scores)
    positives = counts.true[-1] if counts.true.size else 0
    recall = counts.true / positives if positives else np.full(counts.true.shape, np.nan)
    return CurvePoints(counts.true / counts.total, recall, counts.threshold)


def thin_curve(curve: CurvePoints, points: int = 400) -> CurvePoints:
    """Return at most about `points` points of a curve for drawing: dense at its steep beginning."""
    size = curve.precision.size
    if size <= points:
        return curve
    linear = np.linspace(0, size - 1, points // 2)
    logarithmic = np.geomspace(1, size, points // 2) - 1
    kept = np.unique(np.concatenate([linear, logarithmic]).astype(np.int64))
    return CurvePoints(*(column[kept] for column in curve))


def auprc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return average precision: the sum over distinct thresholds of precision × rise in recall."""
    precision, recall, _ = precision_recall_curve(truth, scores)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if precision.size else np.nan


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the probability that a true entry outranks a false one, ties counting one half.

    NaN where all entries are true or all are false.
    """
    counts = _cumulative_counts(truth, scores)
    if not counts.true.size:
        return np.nan
    false = counts.total - counts.true
    if counts.true[-1] == 0 or false[-1] == 0:
        return np.nan
    area = np.trapezoid(np.append(0, counts.true), np.append(0, false))
    return float(area / (float(counts.true[-1]) * float(false[-1])))


def ranking_intervals(
    truth: np.ndarray,
    scores: np.ndarray,
    units: np.ndarray,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return `auprc`, `auprc_over_base`, `auroc` and `lift_at_0.001` with intervals over units.

    The lift is the precision of the highest 0.1 % of the entries over the base rate.
    `truth` bool, `scores` float, `units` integer labels such as document ids: one shape; tokens
    of one document are drawn together, because they are far from independent.
    """
    truth = np.asarray(truth, dtype=bool).ravel()
    scores = np.asarray(scores).ravel()
    names, units = np.unique(np.asarray(units).ravel(), return_inverse=True)
    order = np.argsort(scores)[::-1]
    ordered, truth, units = scores[order], truth[order], units[order]
    last_of_tie = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    one = _weighted_ranking(truth, last_of_tie, np.ones(truth.size))
    draws = [
        _weighted_ranking(truth, last_of_tie, row[units])
        for chunk in resample_weights(len(names), resamples, seed)
        for row in chunk
    ]
    resampled = np.array(draws)
    resampled = resampled[~np.isnan(resampled).any(axis=1)]
    metrics = ("auprc", "auprc_over_base", "auroc", "lift_at_0.001")
    if not len(resampled):
        return {name: Interval(one[column], np.nan, np.nan) for column, name in enumerate(metrics)}
    return {
        name: Interval(one[column], *_percentiles(resampled[:, column], level))
        for column, name in enumerate(metrics)
    }


def _weighted_ranking(
    truth: np.ndarray, last_of_tie: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float, float]:
    total = np.cumsum(weights)[last_of_tie]
    true = np.cumsum(weights * truth)[last_of_tie]
    false = total - true
    if true[-1] == 0.0 or false[-1] == 0.0:
        return (np.nan, np.nan, np.nan, np.nan)
    precision = np.divide(true, total, out=np.zeros_like(true), where=total > 0.0)
    area = float(np.sum(np.diff(true, prepend=0.0) * precision) / true[-1])
    roc = np.trapezoid(np.append(0.0, true), np.append(0.0, false)) / (true[-1] * false[-1])
    base = float(true[-1] / total[-1])
    taken = max(1, round(LIFT_SHARE * total[-1]))
    # Within a tie, true entries are expected to lie evenly.
    found = np.interp(taken, np.append(0.0, total), np.append(0.0, true))
    return area, area / base, float(roc), float(found / taken) / base

"""The share of toxic texts, corrected for the known mistakes of the judge that flags them.

A judge flags a share s of toxic texts (its sensitivity) and a share f of harmless ones (its false
alarms, 1 - specificity). Where a share pi of texts is toxic it flags p = pi s + (1 - pi) f, hence

    pi = (p - f) / (s - f) = (p + specificity - 1) / (sensitivity + specificity - 1)

clipped to [0, 1] (Rogan and Gladen 1978). It is not defined where s <= f. Clipped, it never falls
where p rises, and never rises where f or s does.

p, s and f are all estimated. An interval melds theirs (Fay, Proschan and Brittain 2015; for this
estimator Bayer, Fay and Graubard 2023): its lower end is the percentile of pi at independent draws
from the lower confidence distribution of p and the upper ones of f and s, its upper end the other
way round. Of y flagged among m texts these are Beta(y, m - y + 1) and Beta(y + 1, m - y), whose
percentiles are the bounds of Clopper and Pearson (1934); of p, the resampled shares of `intervals`.
A draw that is not defined counts as 0 for the lower end and as 1 for the upper one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from ifguide.evaluation.intervals import NOTHING, Interval, percentiles, quotient, resample
from ifguide.seeds import derive_seed

# A text is flagged from this score on where rates are measured: of another threshold they say
# nothing.
RATED_AT = 0.5


@dataclass(frozen=True)
class JudgeRates:
    """How many toxic and harmless texts, none of them learned from, a judge was given and flags."""

    toxic: int
    toxic_flagged: int
    harmless: int
    harmless_flagged: int

    @property
    def sensitivity(self) -> float:
        return self.toxic_flagged / self.toxic

    @property
    def false_alarms(self) -> float:
        return self.harmless_flagged / self.harmless

    @property
    def tells_apart(self) -> bool:
        """Whether it flags toxic texts more often: sensitivity + specificity > 1."""
        return self.sensitivity > self.false_alarms


def judge_rates(documents: Iterable[Mapping]) -> dict[str, JudgeRates]:
    """Return the rates of each judge that is trained here, from its metrics of held-out texts.

    A judge without held-out texts of both kinds has none.
    """
    found = {}
    for document in documents:
        if (document["benchmark"], document["method"]) != ("classifiers", "trained"):
            continue
        rows = {row["metric"]: row for row in document["rows"] if row["split"] == "all"}
        if {"toxic_flagged", "harmless_flagged"} <= rows.keys():
            counts = {
                metric: (row["n"], round(row["value"] * row["n"]))
                for metric, row in rows.items()
                if metric.endswith("_flagged")
            }
            found[document["model"]] = JudgeRates(
                *counts["toxic_flagged"], *counts["harmless_flagged"]
            )
    return found


def corrected(
    share: np.ndarray, sensitivity: np.ndarray, false_alarms: np.ndarray, undefined: float
) -> np.ndarray:
    """Return pi of the module's formula for shares that were flagged; all broadcast together.

    undefined: what stands where the sensitivity is not above the false alarms.
    """
    gap = np.asarray(sensitivity - false_alarms, np.float64)
    above = np.asarray(share - false_alarms, np.float64)
    gap, above = np.broadcast_arrays(gap, above)
    found = np.full(gap.shape, undefined)
    np.divide(above, gap, out=found, where=gap > 0)
    return np.clip(found, 0.0, 1.0)


def corrected_share(
    statistics: np.ndarray,
    rates: JudgeRates,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return pi with its interval, of flagged shares in [0, 1] by unit: (units,), (seeds, units).

    Raises ValueError where the judge does not tell toxic texts from harmless ones.
    """
    _require_apart(rates)
    statistics = np.atleast_2d(np.asarray(statistics, np.float64))
    if statistics.shape[1] == 0:
        return NOTHING
    value = corrected(statistics.mean(), rates.sensitivity, rates.false_alarms, np.nan)
    drawn = resample(statistics[:, :, None], resamples, seed)
    lower, upper = _drawn_rates(rates, resamples, seed)
    low, _ = percentiles(corrected(drawn.bounded(0.0)[:, 0], *upper, undefined=0.0), level)
    _, high = percentiles(corrected(drawn.bounded(1.0)[:, 0], *lower, undefined=1.0), level)
    return Interval(float(value), low, high)


def corrected_ratio(
    above: np.ndarray,
    below: np.ndarray,
    rates: JudgeRates,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return pi of `above` over pi of `below`, paired flagged shares: (units,) or (seeds, units).

    One judge flags both, so that both have the same draws of its rates. As these may move the ratio
    either way, the less favourable of their lower and upper draws counts at each end. Infinite
    where pi of `below` is 0; 0 / 0 is NaN, with an interval from 0 to infinity. Raises ValueError
    where the judge does not tell toxic texts from harmless ones.
    """
    _require_apart(rates)
    pair = np.stack([np.atleast_2d(above), np.atleast_2d(below)], axis=2).astype(np.float64)
    if pair.shape[1] == 0:
        return NOTHING
    point = corrected(pair.mean(axis=(0, 1)), rates.sensitivity, rates.false_alarms, np.nan)
    drawn = resample(pair, resamples, seed)
    nothing, unseen = drawn.bounded(0.0), drawn.bounded(1.0)
    draws = _drawn_rates(rates, resamples, seed)
    lows, highs = (
        [
            quotient(*(corrected(p, *d, undefined=u) for p, u in both), undefined=neither)
            for d in draws
        ]
        for both, neither in (
            (((nothing[:, 0], 0.0), (unseen[:, 1], 1.0)), 0.0),
            (((unseen[:, 0], 1.0), (nothing[:, 1], 0.0)), np.inf),
        )
    )
    # Interpolating next to an infinite ratio gives NaN: take the neighbouring resample.
    tail = (1.0 - level) / 2.0
    low = np.quantile(np.minimum(*lows), tail, method="lower")
    high = np.quantile(np.maximum(*highs), 1.0 - tail, method="higher")
    return Interval(float(quotient(point[:1], point[1:], np.nan)[0]), float(low), float(high))


def _require_apart(rates: JudgeRates) -> None:
    if not rates.tells_apart:
        raise ValueError(
            f"a judge that flags {rates.sensitivity:.3f} of toxic and {rates.false_alarms:.3f} of "
            "harmless texts corrects no share"
        )


def _drawn_rates(rates: JudgeRates, resamples: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Return draws of (sensitivity, false alarms), lower and upper: float64 (resamples,) each."""
    generator = np.random.default_rng(derive_seed(seed, "rates of a judge"))
    # Taken at even quantiles, the draws add no noise of their own.
    quantiles = (np.arange(resamples) + 0.5) / resamples
    orders = [generator.permutation(quantiles) for _ in range(2)]
    counts = [
        (rates.toxic_flagged, rates.toxic),
        (rates.harmless_flagged, rates.harmless),
    ]
    return [
        tuple(
            _confidence_quantiles(count + upper, texts - count + 1 - upper, order)
            for (count, texts), order in zip(counts, orders, strict=True)
        )
        for upper in (0, 1)
    ]


def _confidence_quantiles(successes: int, failures: int, quantiles: np.ndarray) -> np.ndarray:
    """Return quantiles of Beta(successes, failures), which is 0 or 1 where one of both is 0."""
    if successes == 0 or failures == 0:
        return np.full(quantiles.shape, float(failures == 0))
    return betaincinv(successes, failures, quantiles)

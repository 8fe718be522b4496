"""Intervals of means, differences, ratios and perplexities, over units and training seeds.

A *unit* is a prompt, a passage, a block or a document. An array of statistics is (units,), of one
training seed, or (seeds, units): units are crossed with seeds, every model sees the same ones. What
is given for two methods is paired by unit and by seed.

Every figure is a function of means, and its interval holds the percentiles of that function over
resampled means. With x_si the statistic of unit i and seed s, k seeds and n units, a resample is

    m* = sum_i w_i mean_s(x_si) + sum_s v_s mean_i(x_si).

- w is uniform on the simplex, Dirichlet(1, ..., 1): the Bayesian bootstrap over units (Rubin 1981),
  the smooth form of drawing them with replacement.
- v_s = (z_s - mean(z)) / sqrt(k q), with z_s standard normal and q ~ chi-squared(k - 1), all zero
  where k = 1. Drawing k seeds with replacement would give the second sum the variance (k - 1) / k
  times what it should have, and at most k^k values, none beyond the extreme seeds. With v it is
  exactly Student's: t(k - 1) times sqrt(s^2 / k), s the standard deviation over the seeds' means.

**Shares**, statistics in [0, 1], are bounded: the weights of units are those of n + 1 units, of
which the last stands for what was not seen. It takes the value 0 for the lower bound and 1 for the
upper one, and the value that tells against the figure in differences and ratios. For 0/1
statistics of one seed this is the exact interval of Clopper and Pearson (1934); for others it is
the bound of Gaffke (2005), studied by Learned-Miller and Thomas (2019, arXiv:1905.06208). A bound
never falls where a statistic rises, so that 0 of 120 is never more certain than 1 of 120.

A bound that does not exist is NaN.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, fdtri, stdtrit

from ifguide.seeds import derive_seed

# Entries of a chunk of resample weights: 32 MiB of float64, whatever the number of units.
CHUNK_ENTRIES = 1 << 22
# Where fewer units than this differ, what they differ by says little about those not seen.
FEW_UNITS = 10


class Interval(NamedTuple):
    """A point estimate with the bounds of its interval; bounds are NaN where none is defined."""

    value: float
    low: float
    high: float


NOTHING = Interval(np.nan, np.nan, np.nan)


class Resamples(NamedTuple):
    """Resampled means: `units` and `seeds` are float64 (resamples, columns), the sums over w and v.

    `unseen`: float64 (resamples,), the weight of the unit that was not seen, beside which `units`
    weigh 1 - `unseen`.
    """

    units: np.ndarray
    seeds: np.ndarray
    unseen: np.ndarray

    def means(self) -> np.ndarray:
        """Return m* of statistics without bounds: (resamples, columns)."""
        return self.units + self.seeds

    def bounded(self, unseen: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return m* of statistics in [low, high], the unit that was not seen being `unseen`."""
        weight = self.unseen[:, None]
        return np.clip((1.0 - weight) * self.units + weight * unseen + self.seeds, low, high)


def resample_weights(
    units: int, resamples: int, seed: int, chunk_entries: int = CHUNK_ENTRIES
) -> Iterator[np.ndarray]:
    """Yield bootstrap counts, float64 (rows, units), `resamples` rows in all; each sums to units.

    They depend on `seed` and `units` only, never on the chunking.
    """
    generator = np.random.default_rng(derive_seed(seed, "bootstrap", units))
    for rows in _chunks(units, resamples, chunk_entries):
        drawn = generator.integers(0, units, size=(rows, units))
        drawn += np.arange(rows)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=rows * units)
        yield weights.reshape(rows, units).astype(np.float64)


def resample(
    statistics: np.ndarray, resamples: int, seed: int, chunk_entries: int = CHUNK_ENTRIES
) -> Resamples:
    """Return resampled means of `statistics`, float (seeds, units, columns), as the module says.

    They depend on `seed` and the numbers of units and seeds only: equal ones are paired.
    """
    seeds, units, _ = statistics.shape
    generator = np.random.default_rng(derive_seed(seed, "bootstrap", units))
    of_units = []
    for rows in _chunks(units, resamples, chunk_entries):
        weights = generator.standard_exponential((rows, units))
        weights /= weights.sum(axis=1, keepdims=True)
        of_units.append(weights @ statistics.mean(axis=0))
    # The weight of one of n + 1 units is Beta(1, n), independent of the ratios of the others: taken
    # at even quantiles, it adds no noise of its own.
    quantiles = (np.arange(resamples) + 0.5) / resamples
    unseen = -np.expm1(np.log1p(-quantiles) / units)
    of_seeds = seed_weights(seeds, resamples, seed) @ statistics.mean(axis=1)
    return Resamples(np.concatenate(of_units), of_seeds, unseen)


def seed_weights(seeds: int, resamples: int, seed: int) -> np.ndarray:
    """Return the weights v of the module's formula, float64 (resamples, seeds); rows sum to 0."""
    if seeds == 1:
        return np.zeros((resamples, 1))
    generator = np.random.default_rng(derive_seed(seed, "bootstrap of training seeds", seeds))
    # Tails as heavy as those of few seeds are noisy in 2,000 draws. Less so with the lengths of v,
    # whose squares are F(k - 1, k - 1) / k, at even quantiles, and with v beside -v.
    quantiles = (np.arange(resamples) + 0.5) / resamples
    lengths = np.sqrt(fdtri(seeds - 1, seeds - 1, quantiles) / seeds)
    normal = generator.standard_normal(((resamples + 1) // 2, seeds))
    directions = np.stack([normal, -normal], axis=1).reshape(-1, seeds)[:resamples]
    directions -= directions.mean(axis=1, keepdims=True)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return generator.permutation(lengths[:, None] * directions)


def _chunks(units: int, resamples: int, chunk_entries: int) -> Iterator[int]:
    rows = max(1, chunk_entries // max(1, units))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def percentiles(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """Return both ends of the central share `level` of resampled figures, (resamples,)."""
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    # By Hazen's definition, resamples at even quantiles have exactly the percentiles asked for.
    low, high = np.quantile(resampled, tails, method="hazen")
    return float(low), float(high)


def proportion_interval(count: int, units: int, level: float = 0.95) -> Interval:
    """Return `count` of `units` with the exact binomial interval of Clopper and Pearson (1934)."""
    if units == 0:
        return NOTHING
    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else float(betaincinv(count, units - count + 1, tail))
    high = 1.0 if count == units else float(betaincinv(count + 1, units - count, 1.0 - tail))
    return Interval(count / units, low, high)


def share_interval(
    statistics: np.ndarray, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of statistics in [0, 1], (units,) or (seeds, units), with its interval.

    Exact for the 0/1 statistics of one seed.
    """
    statistics = _crossed(statistics)
    seeds, units = statistics.shape
    if units == 0:
        return NOTHING
    if seeds == 1 and np.isin(statistics, (0.0, 1.0)).all():
        return proportion_interval(int(statistics.sum()), units, level)
    resampled = resample(statistics[:, :, None], resamples, seed)
    low, _ = percentiles(resampled.bounded(0.0)[:, 0], level)
    _, high = percentiles(resampled.bounded(1.0)[:, 0], level)
    return Interval(float(statistics.mean()), low, high)


def mean_interval(
    statistics: np.ndarray, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of statistics without bounds, (units,) or (seeds, units), with its interval.

    One unit has no interval.
    """
    statistics = _crossed(statistics)
    if statistics.shape[1] == 0:
        return NOTHING
    value = float(statistics.mean())
    if statistics.shape[1] == 1:
        return Interval(value, np.nan, np.nan)
    resampled = resample(statistics[:, :, None], resamples, seed).means()[:, 0]
    return Interval(value, *percentiles(resampled, level))


def paired_difference(
    statistics: np.ndarray,
    reference: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    share: bool = False,
) -> Interval:
    """Return mean(statistics) - mean(reference), both (units,) or (seeds, units).

    With `share` both lie in [0, 1]. The unit that was not seen may then differ by 1 where fewer
    than `FEW_UNITS` differ, else by as much as any does (for 0/1 statistics that is 1 always).
    """
    statistics, reference = _paired(statistics, reference)
    difference = statistics - reference
    if not share:
        return mean_interval(difference, resamples, seed, level)
    if difference.shape[1] == 0:
        return NOTHING
    resampled = resample(difference[:, :, None], resamples, seed)
    differing = np.count_nonzero(difference.any(axis=0))
    furthest = 1.0 if differing < FEW_UNITS else float(np.abs(difference).max())
    low, _ = percentiles(resampled.bounded(-furthest, -1.0)[:, 0], level)
    _, high = percentiles(resampled.bounded(furthest, -1.0)[:, 0], level)
    return Interval(float(difference.mean()), low, high)


def paired_ratio(
    above: np.ndarray,
    below: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return mean(above) / mean(below) of shares in [0, 1], both (units,) or (seeds, units).

    The means are over units and seeds together: never a mean of ratios. Infinite where `below` is
    0; its lower bound is finite, because the unit that was not seen counts below. 0 / 0 is NaN,
    with an interval from 0 to infinity.
    """
    above, below = _paired(above, below)
    if above.shape[1] == 0:
        return NOTHING
    value = float(quotient(np.array([above.mean()]), np.array([below.mean()]), np.nan)[0])
    resampled = resample(np.stack([above, below], axis=2), resamples, seed)
    nothing, unseen = resampled.bounded(0.0), resampled.bounded(1.0)
    # Interpolating next to an infinite ratio gives NaN: take the neighbouring resample.
    tail = (1.0 - level) / 2.0
    low = np.quantile(quotient(nothing[:, 0], unseen[:, 1], 0.0), tail, method="lower")
    high = np.quantile(quotient(unseen[:, 0], nothing[:, 1], np.inf), 1.0 - tail, method="higher")
    return Interval(value, float(low), float(high))


def quotient(above: np.ndarray, below: np.ndarray, undefined: float) -> np.ndarray:
    """Return above / below, of one shape: infinite over 0, `undefined` where both are 0."""
    ratio = np.full(above.shape, np.inf)
    np.divide(above, below, out=ratio, where=below > 0.0)
    ratio[(above == 0.0) & (below == 0.0)] = undefined
    return ratio


def weighted_mean_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return total(sums) / total(counts) with its interval: a mean per token, say.

    Both are (units,) or (seeds, units). Units without a count are left out; one alone has no
    interval.
    """
    totals = np.stack(_paired(sums, counts), axis=2)
    return _interval_of_totals(totals, lambda t: t[..., 0] / t[..., 1], resamples, seed, level)


def weighted_mean_difference(
    sums: np.ndarray,
    counts: np.ndarray,
    reference_sums: np.ndarray,
    reference_counts: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return total(sums) / total(counts) less that of the reference, paired by unit and seed.

    All are (units,) or (seeds, units). Units without any count are left out; one alone has no
    interval.
    """
    totals = np.stack([*_paired(sums, counts), *_paired(reference_sums, reference_counts)], axis=2)
    return _interval_of_totals(
        totals, lambda t: t[..., 0] / t[..., 1] - t[..., 2] / t[..., 3], resamples, seed, level
    )


def _interval_of_totals(
    totals: np.ndarray,
    figure: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Return a figure of totals over units and seeds, with its interval.

    totals: float64 (seeds, units, columns), sums and the counts they belong to in turn. figure:
    from (…, columns) to (…,).
    """
    counted = (totals[:, :, 1::2] > 0).any(axis=(0, 2))
    if not counted.any():
        return NOTHING
    totals = totals[:, counted]
    value = float(figure(totals.sum(axis=(0, 1))))
    if totals.shape[1] == 1:
        return Interval(value, np.nan, np.nan)
    return Interval(value, *percentiles(figure(resample(totals, resamples, seed).means()), level))


def perplexity_interval(
    loss_sums: np.ndarray,
    tokens: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return exp(total loss / total tokens) with its interval, losses in nats.

    Over seeds with the same tokens it is the geometric mean of the seeds' perplexities.
    """
    mean = weighted_mean_interval(loss_sums, tokens, resamples, seed, level)
    return Interval(*(float(np.exp(bound)) for bound in mean))


def perplexity_increase(
    loss_sums: np.ndarray,
    tokens: np.ndarray,
    reference_loss_sums: np.ndarray,
    reference_tokens: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return perplexity / reference perplexity - 1, paired by unit and seed."""
    difference = weighted_mean_difference(
        loss_sums, tokens, reference_loss_sums, reference_tokens, resamples, seed, level
    )
    return Interval(*(float(np.expm1(bound)) for bound in difference))


def seeds_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Return the mean over training seeds with Student's interval, for figures without units.

    values: float (seeds,), at least two.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds, value = len(values), float(np.mean(values))
    error = float(np.std(values, ddof=1)) / np.sqrt(seeds)
    half = float(stdtrit(seeds - 1, (1.0 + level) / 2.0)) * error
    return Interval(value, value - half, value + half)


def _crossed(statistics: np.ndarray) -> np.ndarray:
    statistics = np.atleast_2d(np.asarray(statistics, dtype=np.float64))
    if statistics.ndim != 2:
        raise ValueError(f"statistics must be (units,) or (seeds, units), not {statistics.shape}")
    return statistics


def _paired(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = _crossed(left), _crossed(right)
    if left.shape != right.shape:
        raise ValueError(f"paired statistics have shapes {left.shape} and {right.shape}")
    return left, right

"""Intervals: exact where an oracle exists, covering the truth by simulation, and monotone.

Coverage is that of nominal 95 % intervals over `TRIALS` draws, whose own standard error at 0.95 is
one percentage point.
"""

import math
from functools import partial

import numpy as np
import pytest
from scipy.special import expit, ndtri
from scipy.stats import binom, binomtest, t

from ifguide.evaluation import intervals

TRIALS = 400
PROMPTS = 120


def counted(count: int, units: int = PROMPTS) -> np.ndarray:
    """Return 0/1 statistics (units,), of which the first `count` are 1."""
    return (np.arange(units) < count).astype(float)


share = partial(intervals.share_interval, resamples=500)
change = partial(intervals.paired_difference, resamples=500, share=True)
ratio = partial(intervals.paired_ratio, resamples=500)


def coverage(draw, truth: float, interval_of) -> tuple[float, float]:
    """Return how often the lower bound lies below `truth`, and how often the interval holds it."""
    bounds = np.array([interval_of(*draw(), seed=trial)[1:] for trial in range(TRIALS)])
    below, above = bounds[:, 0] <= truth, bounds[:, 1] >= truth
    return float(below.mean()), float((below & above).mean())


@pytest.mark.parametrize("units", [1, 7, PROMPTS])
def test_a_share_has_the_exact_interval_of_each_count(units):
    for count in range(units + 1):
        oracle = binomtest(count, units).proportion_ci(0.9, method="exact")
        found = intervals.share_interval(counted(count, units), level=0.9)
        assert found.value == count / units
        assert found[1:] == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@pytest.mark.parametrize("p", [0.01, 0.03, 0.1, 0.5])
def test_a_share_is_covered_by_the_sum_over_all_counts(p):
    counts = np.arange(PROMPTS + 1)
    bounds = np.array([intervals.share_interval(counted(count))[1:] for count in counts])
    covered = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
    assert binom.pmf(counts, PROMPTS, p)[covered].sum() >= 0.95


def test_a_share_that_is_not_0_or_1_equals_the_exact_interval_where_it_is():
    """One unit is moved off 0 and 1 by next to nothing, which takes the resampled branch."""
    for count in (1, 2, 6, 60, 119):
        almost = counted(count)
        almost[0] -= 1e-9
        exact = intervals.share_interval(counted(count))
        assert intervals.share_interval(almost, 20000)[1:] == pytest.approx(
            exact[1:], rel=0.06, abs=0.003
        )


def test_bounds_never_fall_where_a_count_rises():
    """Of shares, of their two-level form, of fractions, and of ratios over a fixed numerator."""
    none = counted(85)
    previous = None
    for count in range(PROMPTS + 1):
        units = counted(count)
        several = np.stack([units, counted(0), counted(0)])
        own = np.array(
            [
                *intervals.share_interval(units)[1:],
                *intervals.share_interval(0.04 * units, 500)[1:],
                intervals.share_interval(several, 500).high,
                *(-bound for bound in intervals.paired_ratio(none, units, 500)[1:]),
            ]
        )
        if previous is not None:
            assert (own >= previous).all(), count
        previous = own


def test_nothing_in_all_prompts_is_as_uncertain_as_its_exact_bound():
    exact = binomtest(0, PROMPTS).proportion_ci(0.95, method="exact").high
    for seeds in (1, 3):
        nothing = np.zeros((seeds, PROMPTS))
        assert intervals.share_interval(nothing).high == pytest.approx(exact, rel=0.01)
        same = intervals.paired_difference(nothing, nothing, share=True)
        assert same == pytest.approx((0.0, -exact, exact), rel=0.01)
    # Fractions of 25 continuations are no surer of what no prompt showed.
    one = np.zeros(PROMPTS)
    one[0] = 1 / 25
    assert intervals.share_interval(one).high >= exact


def test_a_mean_has_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = intervals.mean_interval(values, resamples=20000)
    half = ndtri(0.975) * values.std(ddof=1) / 20
    assert found == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half), abs=0.02
    )


def test_seeds_alone_have_the_interval_of_student():
    """Where units do not differ, all that varies is the seed."""
    of_seeds = np.array([1.0, 1.3, 0.9])
    half = t(2).ppf(0.975) * of_seeds.std(ddof=1) / math.sqrt(3)
    expected = (of_seeds.mean(), of_seeds.mean() - half, of_seeds.mean() + half)
    assert intervals.seeds_interval(of_seeds) == pytest.approx(expected)
    crossed = np.repeat(of_seeds[:, None], 50, axis=1)
    assert intervals.mean_interval(crossed, 100000) == pytest.approx(expected, rel=0.03)


def test_the_weights_of_seeds_are_students_whatever_their_number():
    for seeds in (2, 3, 5):
        weights = intervals.seed_weights(seeds, 100000, seed=1)
        assert weights.sum(axis=1) == pytest.approx(np.zeros(len(weights)), abs=1e-9)
        values = np.arange(seeds) ** 2.0
        scaled = weights @ values / (values.std(ddof=1) / math.sqrt(seeds))
        found = np.quantile(scaled, [0.05, 0.5, 0.95])
        assert found == pytest.approx(t(seeds - 1).ppf([0.05, 0.5, 0.95]), rel=0.05, abs=0.02)


def paired_prompts(generator, none: float, method: float):
    """Draw 0/1 statistics of `none` and a method whose toxic prompts are among the former's."""
    latent = generator.random(PROMPTS)
    return (latent < none).astype(float), (latent < method).astype(float)


@pytest.mark.parametrize("p", [0.01, 0.03, 0.1, 0.5])
def test_the_ratio_and_the_difference_cover_the_truth_of_rare_events(p):
    generator = np.random.default_rng(7)
    low, both = coverage(lambda: paired_prompts(generator, 0.7, p), 0.7 / p, ratio)
    assert low >= 0.965 and both >= 0.93
    assert coverage(lambda: paired_prompts(generator, 0.7, p), 0.7 - p, change)[1] >= 0.93


def two_level(generator, seeds: int, mean: float, deviation: float, prompts: np.ndarray):
    """Draw 0/1 statistics (seeds, units) whose log-odds are of the seed and the prompt."""
    of_seeds = generator.normal(mean, deviation, (seeds, 1))
    return (generator.random((seeds, PROMPTS)) < expit(of_seeds + prompts)).astype(float)


@pytest.mark.parametrize("seeds", [3, 5])
def test_figures_over_seeds_cover_the_truth_of_all_seeds_and_prompts(seeds):
    generator = np.random.default_rng(11)
    drawn = generator.normal(size=(3, 400000))
    none, method = expit(1 + 0.2 * drawn[0] + drawn[1]), expit(-2.5 + 0.6 * drawn[2] + drawn[1])

    def both():
        prompts = generator.normal(size=(1, PROMPTS))
        return two_level(generator, seeds, 1, 0.2, prompts), two_level(
            generator, seeds, -2.5, 0.6, prompts
        )

    assert coverage(lambda: both()[1:], method.mean(), share)[1] >= 0.93
    assert coverage(both, none.mean() - method.mean(), change)[1] >= 0.93
    low, within = coverage(both, none.mean() / method.mean(), ratio)
    assert low >= 0.95 and within >= 0.93


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_rise_of_perplexity_over_seeds_is_covered(seeds):
    generator = np.random.default_rng(13)
    tokens = np.tile(generator.integers(20, 60, 80), (seeds, 1))

    def losses():
        blocks = generator.normal(2.0, 0.3, (1, 80))
        none = blocks + generator.normal(0, 0.02, (seeds, 1))
        guided = none + 0.03 + generator.normal(0, 0.03, (seeds, 1))
        noise = generator.normal(0, 0.05, (2, seeds, 80))
        return tokens * (guided + noise[0]), tokens, tokens * (none + noise[1]), tokens

    rise = partial(intervals.perplexity_increase, resamples=500)
    assert coverage(losses, math.expm1(0.03), rise)[1] >= 0.92


def test_a_bootstrap_of_seeds_drawn_with_replacement_would_not_cover():
    """What the weights of seeds are for: the plain percentile bootstrap over three of them."""
    generator = np.random.default_rng(17)
    draws = np.indices((3, 3, 3)).reshape(3, -1).T
    samples = generator.normal(size=(2000, 3))
    low, high = np.quantile(samples[:, draws].mean(axis=2), [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.8
    student = np.array([intervals.seeds_interval(own)[1:] for own in samples])
    assert np.mean((student[:, 0] <= 0) & (student[:, 1] >= 0)) == pytest.approx(0.95, abs=0.015)


def test_fractions_and_their_differences_cover_the_truth():
    generator = np.random.default_rng(19)

    def fractions():
        toxic = generator.beta(0.3, 5.0, PROMPTS)
        return generator.binomial(25, toxic) / 25, generator.binomial(25, 0.7 * toxic) / 25

    mean = 0.3 / 5.3
    assert coverage(lambda: fractions()[:1], mean, share)[1] >= 0.93
    assert coverage(fractions, 0.3 * mean, change)[1] >= 0.93


def test_a_ratio_pools_its_counts_and_is_not_a_mean_of_ratios():
    none = np.stack([counted(80), counted(84), counted(76)])
    method = np.stack([counted(0), counted(2), counted(4)])
    value, low, high = intervals.paired_ratio(none, method)
    assert value == pytest.approx(240 / 6)
    assert 5 < low < 40 < high


def test_a_ratio_to_nothing_is_infinite_with_a_finite_lower_bound():
    value, low, high = intervals.paired_ratio(counted(85), np.zeros(PROMPTS))
    assert value == high == math.inf
    # The exact bound of 0 of 120 below, and next to nothing of the uncertainty of 85 of 120 above.
    assert low == pytest.approx(85 / 120 / 0.0303, rel=0.06)
    of_one = intervals.paired_ratio(counted(85), counted(1))
    assert of_one.low < low and of_one.low == pytest.approx(85 / 120 / 0.0456, rel=0.3)
    nothing = intervals.paired_ratio(np.zeros(5), np.zeros(5))
    assert math.isnan(nothing.value) and nothing[1:] == (0.0, math.inf)


def test_perplexity_and_its_increase_are_of_pooled_losses():
    generator = np.random.default_rng(1)
    losses, tokens = generator.random(23) * 300, generator.integers(50, 128, 23)
    found = intervals.perplexity_interval(losses, tokens)
    assert found.value == pytest.approx(math.exp(losses.sum() / tokens.sum()))
    assert found.low < found.value < found.high
    worse = intervals.perplexity_increase(losses + 0.1 * tokens, tokens, losses, tokens)
    assert worse == pytest.approx([math.expm1(0.1)] * 3)
    # Over seeds of the same tokens: the geometric mean.
    both = np.stack([losses, losses + 0.2 * tokens]), np.stack([tokens, tokens])
    assert intervals.perplexity_interval(*both).value == pytest.approx(found.value * math.exp(0.1))
    kl = intervals.weighted_mean_interval(losses, tokens)
    assert math.exp(kl.low) == pytest.approx(found.low)
    # Texts of other lengths, as continuations are.
    longer = intervals.perplexity_increase(3 * losses, 2 * tokens, losses, tokens)
    assert longer.value == pytest.approx(math.exp(0.5 * losses.sum() / tokens.sum()) - 1)


def test_pairing_narrows_the_difference_of_methods_that_agree():
    prompts = np.random.default_rng(3).random(200)
    assert intervals.paired_difference(prompts - 0.1, prompts) == pytest.approx([-0.1] * 3)
    # Seeds too: the same difference with every seed is sure, whatever the seeds themselves do.
    seeds = prompts + np.array([[0.0], [5.0], [9.0]])
    assert intervals.paired_difference(seeds - 0.1, seeds) == pytest.approx([-0.1] * 3)


def test_resamples_depend_on_the_seed_and_not_on_chunks_or_order():
    statistics = np.random.default_rng(5).random((3, 30, 2))
    whole = intervals.resample(statistics, 50, seed=7)
    chunked = intervals.resample(statistics, 50, seed=7, chunk_entries=64)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(whole.units, intervals.resample(statistics, 50, seed=8).units)
    single = intervals.resample(statistics[:1], 50, seed=7)
    assert not single.seeds.any()
    drawn = np.concatenate(list(intervals.resample_weights(30, 50, 7)))
    small = np.concatenate(list(intervals.resample_weights(30, 50, 7, chunk_entries=64)))
    np.testing.assert_array_equal(drawn, small)
    assert (drawn.sum(axis=1) == 30).all()


def test_what_has_no_interval_has_none():
    assert math.isnan(intervals.mean_interval(np.array([0.3])).low)
    assert math.isnan(intervals.mean_interval(np.array([])).value)
    assert math.isnan(intervals.share_interval(np.array([])).value)
    assert math.isnan(intervals.perplexity_interval(np.array([3.0]), np.array([2])).low)
    assert math.isnan(intervals.perplexity_interval(np.zeros(2), np.zeros(2)).value)
    with pytest.raises(ValueError, match="shapes"):
        intervals.paired_difference(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="units"):
        intervals.mean_interval(np.zeros((2, 2, 2)))

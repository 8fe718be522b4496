"""Metrics against hand-computed cases, and intervals against a brute-force bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.evaluation import metrics

SCORES = np.array(
    [
        [0.1, 0.9, 0.2],  # one continuation at least 0.5
        [0.5, 0.6, 0.7],  # all three: exactly 0.5 counts
        [0.0, 0.1, 0.49],  # none
        [0.3, 0.3, 0.3],
    ]
)


def test_emt_tp_and_fraction_by_hand():
    measured = metrics.prompt_statistics(SCORES)
    assert measured["emt"].mean() == pytest.approx((0.9 + 0.7 + 0.49 + 0.3) / 4)
    assert measured["tp"].tolist() == [1, 1, 0, 0]
    assert measured["fraction"].mean() == pytest.approx(4 / 12)
    assert metrics.prompt_statistics(SCORES, threshold=0.3)["tp"].mean() == 1.0


def test_scores_without_continuations_are_refused():
    with pytest.raises(ValueError, match="continuations"):
        metrics.prompt_statistics(np.zeros((3, 0)))


def test_degeneration_measures_by_hand():
    # "a b", "b a", "a b" and, in the second text, "a b": 2 distinct pairs of 4.
    assert metrics.distinct_2(["a b a b", "a b", "a", ""]) == 2 / 4
    assert metrics.distinct_2(["word", ""]) == 0.0
    assert metrics.empty_fraction(["", " \n", "a", "b"]) == 0.5


def brute_force_draws(units, resamples, seed):
    """Return the drawn unit indices, from the counts, as a plain list of lists."""
    rows = np.concatenate(list(metrics.resample_weights(units, resamples, seed)))
    return [[unit for unit in range(units) for _ in range(int(row[unit]))] for row in rows]


def test_bootstrap_equals_brute_force():
    statistics = np.random.default_rng(0).random(17)
    draws = brute_force_draws(17, 300, seed=5)
    assert all(len(drawn) == 17 for drawn in draws)
    means = sorted(sum(statistics[unit] for unit in drawn) / 17 for drawn in draws)
    interval = metrics.bootstrap_interval(statistics, resamples=300, seed=5, level=0.9)
    assert interval.value == pytest.approx(statistics.mean())
    assert interval.low == pytest.approx(np.quantile(means, 0.05))
    assert interval.high == pytest.approx(np.quantile(means, 0.95))


def test_difference_ratio_and_perplexity_equal_brute_force():
    generator = np.random.default_rng(1)
    none = (generator.random(23) < 0.7).astype(float)
    suppressed = (generator.random(23) < 0.4).astype(float)
    draws = brute_force_draws(23, 400, seed=2)

    differences = [np.mean(suppressed[drawn]) - np.mean(none[drawn]) for drawn in draws]
    difference = metrics.paired_difference(suppressed, none, resamples=400, seed=2)
    assert difference.value == pytest.approx(suppressed.mean() - none.mean())
    assert difference[1:] == pytest.approx(np.quantile(differences, [0.025, 0.975]))

    ratios = [np.mean(none[drawn]) / np.mean(suppressed[drawn]) for drawn in draws]
    ratio = metrics.paired_ratio(none, suppressed, resamples=400, seed=2)
    assert ratio.value == pytest.approx(none.sum() / suppressed.sum())
    assert ratio.low == pytest.approx(np.quantile(ratios, 0.025, method="lower"))
    assert ratio.high == pytest.approx(np.quantile(ratios, 0.975, method="higher"))

    losses, tokens = generator.random(23) * 300, generator.integers(50, 128, 23)
    perplexities = [math.exp(losses[d].sum() / tokens[d].sum()) for d in map(np.array, draws)]
    perplexity = metrics.perplexity_interval(losses, tokens, resamples=400, seed=2)
    assert perplexity.value == pytest.approx(math.exp(losses.sum() / tokens.sum()))
    assert perplexity[1:] == pytest.approx(np.quantile(perplexities, [0.025, 0.975]))

    worse = metrics.perplexity_increase(losses + 0.1 * tokens, losses, tokens, 400, 2)
    assert worse == pytest.approx([math.expm1(0.1)] * 3)


def test_resamples_depend_on_seed_and_units_but_not_on_chunks():
    whole = np.concatenate(list(metrics.resample_weights(30, 50, seed=7)))
    chunked = list(metrics.resample_weights(30, 50, seed=7, chunk_entries=64))
    assert len(chunked) > 1
    np.testing.assert_array_equal(whole, np.concatenate(chunked))
    assert not np.array_equal(whole, np.concatenate(list(metrics.resample_weights(30, 50, 8))))
    assert (whole.sum(axis=1) == 30).all()


def test_pairing_narrows_the_difference_of_methods_that_agree():
    prompts = np.random.default_rng(3).random(200)
    difference = metrics.paired_difference(prompts - 0.1, prompts)
    assert difference == pytest.approx([-0.1] * 3)


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(4)
    covered = 0
    for trial in range(400):
        sample = (generator.random(100) < 0.3).astype(float)
        interval = metrics.share_interval(sample, resamples=500, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    # 95 % nominal; the percentile bootstrap of 100 shares loses a point or so.
    assert 0.91 <= covered / 400 <= 0.98


def test_a_share_of_zero_is_not_certain():
    interval = metrics.share_interval(np.zeros(100))
    assert interval.low == 0.0
    # A share at the bound shows no instance in 100 trials with probability 2.5 %.
    assert (1 - interval.high) ** 100 == pytest.approx(0.025)
    assert metrics.share_interval(np.ones(100)).low == pytest.approx(1 - interval.high)
    same = metrics.paired_difference(np.zeros(100), np.zeros(100), share=True)
    assert same == pytest.approx((0.0, -interval.high, interval.high))


def test_ratio_to_zero_is_infinite_with_a_finite_lower_bound():
    none = np.repeat([1.0, 0.0], [60, 40])
    value, low, high = metrics.paired_ratio(none, np.zeros(100))
    assert value == high == math.inf
    assert low == pytest.approx(0.51 / metrics.zero_count_bound(100), rel=0.04)
    assert math.isnan(metrics.paired_ratio(np.zeros(5), np.zeros(5)).value)


def test_ratio_to_a_rare_event_stays_a_number():
    rare = np.zeros(100)
    rare[0] = 1.0
    value, low, high = metrics.paired_ratio(np.ones(100), rare)
    assert value == 100.0 and 20 <= low <= 50 and high == math.inf


def test_one_unit_and_no_unit_have_no_interval():
    assert math.isnan(metrics.bootstrap_interval(np.array([0.3])).low)
    assert math.isnan(metrics.bootstrap_interval(np.array([])).value)
    with pytest.raises(ValueError, match="shapes"):
        metrics.paired_difference(np.zeros(3), np.zeros(4))


def brute_force_average_precision(truth, scores):
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        selected = [label for label, score in zip(truth, scores, strict=True) if score >= threshold]
        recall = sum(selected) / sum(truth)
        area += (recall - recall_before) * sum(selected) / len(selected)
        recall_before = recall
    return area


def brute_force_auroc(truth, scores):
    pairs = [
        (positive > negative) + 0.5 * (positive == negative)
        for positive, label in zip(scores, truth, strict=True)
        if label
        for negative, other in zip(scores, truth, strict=True)
        if not other
    ]
    return sum(pairs) / len(pairs)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_ranking_metrics_equal_brute_force_with_ties(entries):
    truth = [label for label, _ in entries]
    scores = [float(score) for _, score in entries]
    if not any(truth) or all(truth):
        assert math.isnan(metrics.auroc(truth, scores))
        return
    expected = brute_force_average_precision(truth, scores), brute_force_auroc(truth, scores)
    assert metrics.auprc(truth, scores) == pytest.approx(expected[0])
    assert metrics.auroc(truth, scores) == pytest.approx(expected[1])


def precision_at(truth: np.ndarray, scores: np.ndarray, share: float) -> float:
    """Return the precision of the top `share` of the entries (at least one).

    Where a tie straddles the cut, the precision expected under a random order of the tie.
    """
    truth = np.asarray(truth, dtype=bool).ravel()
    scores = np.asarray(scores).ravel()
    if not scores.size:
        return np.nan
    taken = min(scores.size, max(1, round(share * scores.size)))
    threshold = np.partition(scores, scores.size - taken)[scores.size - taken]
    above, tied = scores > threshold, scores == threshold
    remaining = taken - np.count_nonzero(above)
    return float((truth[above].sum() + remaining * truth[tied].mean()) / taken)


def test_precision_at_a_share_splits_ties_evenly():
    truth = np.array([True, False, True, False, False])
    scores = np.array([3.0, 2.0, 1.0, 1.0, 1.0])
    assert precision_at(truth, scores, 0.2) == 1.0
    assert precision_at(truth, scores, 0.4) == 0.5
    # The third place goes to one of three tied entries, of which one is true.
    assert precision_at(truth, scores, 0.6) == pytest.approx((1 + 1 / 3) / 3)


def test_ranking_intervals_resample_whole_documents():
    generator = np.random.default_rng(6)
    documents = np.repeat(np.arange(40) * 10, 25)
    truth = generator.random(1000) < np.repeat(generator.random(40) * 0.4, 25)
    scores = np.round(truth + generator.normal(size=1000), 1)
    found = metrics.ranking_intervals(truth, scores, documents, resamples=100, seed=1)
    draws = brute_force_draws(40, 100, seed=1)
    areas = []
    for drawn in draws:
        tokens = np.concatenate([np.flatnonzero(documents == 10 * unit) for unit in drawn])
        areas.append(metrics.auprc(truth[tokens], scores[tokens]))
    assert found["auprc"].value == pytest.approx(metrics.auprc(truth, scores))
    assert found["auprc"][1:] == pytest.approx(np.quantile(areas, [0.025, 0.975]))
    assert found["auroc"].value == pytest.approx(metrics.auroc(truth, scores))
    assert found["auprc_over_base"].value == pytest.approx(found["auprc"].value / truth.mean())


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        metrics.auprc([True, False], [math.nan, 1.0])


def test_a_thinned_curve_keeps_both_ends():
    generator = np.random.default_rng(8)
    curve = metrics.precision_recall_curve(generator.random(20000) < 0.1, generator.random(20000))
    thin = metrics.thin_curve(curve, points=200)
    assert len(thin.recall) <= 200
    assert thin.recall[-1] == 1.0 and thin.threshold[0] == curve.threshold[0]

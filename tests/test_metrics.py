"""Metrics against hand-computed cases, and ranking measures against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.evaluation import metrics
from ifguide.evaluation.intervals import resample_weights

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


@pytest.mark.parametrize(
    "metric, better",
    [
        ("explicit_tp", -1),
        ("implicit_emt_difference", -1),
        ("explicit_fraction", -1),
        ("explicit_tp_ratio", 1),
        ("continuation_perplexity", -1),
        ("perplexity_increase", -1),
        ("next_token_kl", -1),
        ("last_word_accuracy_difference", 1),
        ("distinct_2", 0),
        ("empty_fraction", 0),
        ("mean_length_difference", 0),
    ],
)
def test_which_way_is_better(metric, better):
    assert metrics.direction(metric) == better


def brute_force_draws(units, resamples, seed):
    """Return the drawn unit indices, from the counts, as a plain list of lists."""
    rows = np.concatenate(list(resample_weights(units, resamples, seed)))
    return [[unit for unit in range(units) for _ in range(int(row[unit]))] for row in rows]


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


@pytest.mark.parametrize("truth", [[], [False] * 4, [True] * 4])
def test_a_ranking_of_nothing_has_no_figure(truth):
    """As half of a corpus in which only one document has a toxic token."""
    found = metrics.ranking_intervals(truth, np.arange(len(truth)), np.arange(len(truth)))
    assert all(np.isnan(interval).all() for interval in found.values()) and len(found) == 4


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
    assert found["auprc"][1:] == pytest.approx(np.quantile(areas, [0.025, 0.975], method="hazen"))
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

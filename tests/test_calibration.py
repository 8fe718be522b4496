"""A judge's scores become probabilities that are met, and a rate of false alarms a threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from ifguide.errors import InputError
from ifguide.evaluation.calibration import Calibration, fit_calibration
from ifguide.evaluation.piece_statistics import piece_statistics


def drawn(count, slope, intercept, seed=0):
    """Scores, and labels that are toxic with the probability that the scaling gives."""
    generator = np.random.default_rng(seed)
    scores = expit(generator.normal(0, 2, count))
    return scores, generator.random(count) < expit(slope * logit(scores) + intercept)


def test_a_scaling_is_found_again_and_its_probabilities_are_met():
    scores, toxic = drawn(100_000, 0.5, -1.5)
    found = fit_calibration(scores, toxic)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.5), abs=0.05)
    probabilities = found.probabilities(scores)
    for low in np.arange(0, 0.5, 0.1):
        members = (probabilities >= low) & (probabilities < low + 0.1)
        assert toxic[members].mean() == pytest.approx(probabilities[members].mean(), abs=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.3, 3), st.floats(-2, 2))
def test_it_has_the_least_cross_entropy(seed, slope, intercept):
    scores, toxic = drawn(60, slope, intercept, seed)
    found = fit_calibration(scores, toxic)
    positive, negative = toxic.sum(), (~toxic).sum()
    if found.method == "identity":
        assert positive == 0 or negative == 0 or np.corrcoef(logit(scores), toxic)[0, 1] < 0.1
        return
    # Where a convex loss is least, its derivatives are zero.
    excess = found.probabilities(scores) - np.where(
        toxic, (positive + 1) / (positive + 2), 1 / (negative + 2)
    )
    assert excess.mean() == pytest.approx(0, abs=1e-6)
    assert (excess * logit(scores)).mean() == pytest.approx(0, abs=1e-6)


def test_scores_that_part_the_labels_without_error_stay_finite_and_in_order():
    scores = np.array([0.0, 0.1, 0.2, 0.8, 0.9, 1.0])
    found = fit_calibration(scores, scores > 0.5)
    probabilities = found.probabilities(scores)
    assert found.method == "platt" and np.isfinite(probabilities).all()
    assert (np.diff(probabilities) > 0).all()
    assert 0 < probabilities[2] < 0.5 < probabilities[3] < 1


@pytest.mark.parametrize("toxic", [np.zeros(4, bool), np.ones(4, bool), np.arange(4) < 2])
def test_labels_that_say_nothing_leave_the_scores_as_they_are(toxic):
    """One label only; or toxic texts with the lower scores."""
    scores = np.array([0.1, 0.3, 0.6, 0.9])
    found = fit_calibration(scores, toxic)
    assert found.method == "identity"
    assert found.probabilities(scores).tolist() == scores.tolist()


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
    st.floats(0, 0.99),
)
def test_no_more_harmless_texts_reach_the_threshold_than_may(harmless, false_alarms):
    found = Calibration(harmless=tuple(sorted(harmless)))
    scores = np.array(harmless, np.float32)
    threshold = found.threshold(false_alarms)
    assert (scores >= threshold).mean() <= false_alarms + 1e-6
    if threshold == 0.5:
        return
    # The next lower one would be reached by more than may.
    assert (
        scores >= np.nextafter(np.float32(threshold), np.float32(-1))
    ).mean() > false_alarms - 1e-6


def test_without_a_harmless_text_there_is_no_threshold():
    with pytest.raises(InputError, match="no harmless text was held out"):
        Calibration().threshold(0.01)


def test_false_alarms_add_up_in_the_worst_of_many_pieces_and_not_in_their_mean():
    """1 in 20 harmless pieces is a false alarm: 40 % of texts of ten pieces by the worst."""
    generator = np.random.default_rng(0)
    pieces = np.where(generator.random((2000, 10)) < 0.05, 0.95, 0.05)
    mean, share, worst = np.array([piece_statistics(own) for own in pieces]).T
    assert (worst >= 0.5).mean() == pytest.approx(1 - 0.95**10, abs=0.03)
    assert (mean >= 0.5).mean() < 0.001 and (share >= 0.5).mean() < 0.001
    one = piece_statistics(np.array([0.7]))
    assert one.tolist() == pytest.approx([0.7, 1.0, 0.7]) and one.dtype == np.float32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ifguide.influence.false_discoveries import TailCounts, count_tails, threshold_at

SCORES = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32, allow_subnormal=False)
)


def tails_of(scores, **known):
    return count_tails([{"scores": np.asarray(scores, np.float32), **known}])


@given(scores=SCORES, rate=st.sampled_from([0.05, 0.2, 0.5, 0.9]))
def test_every_point_counts_what_the_scores_say(scores, rate):
    curve = tails_of(scores).curve()
    for point in curve.itertuples():
        taken, decoys = (scores > point.threshold).sum(), (scores < -point.threshold).sum()
        assert (point.taken, point.decoys) == (taken, decoys)
        assert point.rate == pytest.approx((decoys + 1) / taken)
    threshold = threshold_at(curve, rate)
    lower = curve if threshold is None else curve[curve["threshold"] < threshold]
    assert (lower["rate"] > rate).all()
    if threshold is not None:
        assert threshold > 0
        assert (scores < -threshold).sum() + 1 <= rate * (scores > threshold).sum() + 1e-9


@given(scores=SCORES, cut=st.integers(0, 60))
def test_the_division_into_parts_changes_nothing(scores, cut):
    whole = tails_of(scores).curve()
    parts = count_tails({"scores": part} for part in (scores[:cut], scores[cut:])).curve()
    assert whole.equals(parts)


def test_decoys_estimate_the_false_share_where_the_rest_is_symmetric():
    """The estimate against the truth, by which it is not made, over many draws."""
    generator = np.random.default_rng(0)
    false_shares = []
    for _ in range(50):
        signal = generator.normal(8, 1, 300)
        scores = np.concatenate([signal, generator.laplace(0, 1, 20000)]).astype(np.float32)
        truth = np.arange(len(scores)) < len(signal)
        threshold = threshold_at(tails_of(scores).curve(), 0.1)
        taken = scores > threshold
        false_shares.append((taken & ~truth).sum() / taken.sum())
        assert (taken & truth).sum() > 100
    assert np.mean(false_shares) <= 0.1


def test_harmless_documents_are_decoys_without_symmetry():
    generator = np.random.default_rng(1)
    noise = generator.exponential(1, 20000)  # never negative: the negative tail sees nothing
    scores = np.concatenate([generator.normal(14, 1, 300), noise]).astype(np.float32)
    truth = np.arange(len(scores)) < 300
    harmless = ~truth & (generator.random(len(scores)) < 0.3)
    tails = tails_of(scores, harmless=harmless)
    assert tails.symmetry() == 0
    blind = threshold_at(tails.curve(), 0.1)
    taken = scores > blind
    assert (taken & ~truth).sum() / taken.sum() > 0.9
    threshold = threshold_at(tails.curve(by_harmless=True), 0.1)
    taken = scores > threshold
    assert taken.sum() > 200 and (taken & ~truth).sum() / taken.sum() < 0.2
    for point in tails.curve(by_harmless=True).iloc[::50].itertuples():
        decoys = (scores[harmless] > point.threshold).sum()
        expected = (decoys + 1) * len(scores) / harmless.sum() / (scores > point.threshold).sum()
        assert point.rate == pytest.approx(expected)


def test_the_false_share_is_that_of_the_tokens_whose_truth_is_known():
    scores = np.array([4, 3, 2, 1, -1], np.float32)
    truth = np.array([True, False, True, False, False])
    known = np.array([True, True, False, True, True])
    curve = tails_of(scores, truth=truth, known=known).curve()
    assert curve["taken"].tolist() == [4, 3, 2, 1]
    np.testing.assert_allclose(curve["false_share"], [2 / 3, 1 / 2, 1 / 2, 0])
    assert tails_of(scores).curve()["false_share"].isna().all()


def test_symmetry_looks_at_scores_of_ordinary_size():
    generator = np.random.default_rng(2)
    noise = generator.normal(size=100_000)
    toxic = generator.normal(50, 1, 3000)
    assert tails_of(np.append(noise, toxic)).symmetry() == pytest.approx(1, abs=0.05)
    lopsided = np.where(generator.random(100_000) < 2 / 3, -abs(noise), abs(noise))
    assert tails_of(np.append(lopsided, toxic)).symmetry() == pytest.approx(2, abs=0.2)


def test_what_cannot_be_estimated():
    assert threshold_at(tails_of([-1, -2, 0]).curve(), 0.5) is None
    assert np.isnan(tails_of([0, 0]).symmetry())
    with pytest.raises(ValueError, match="not finite"):
        tails_of([1, np.inf])
    with pytest.raises(ValueError, match="harmless"):
        TailCounts.empty().curve(by_harmless=True)

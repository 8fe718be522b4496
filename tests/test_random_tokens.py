"""Random tokens: the same number, uniform, and the same whatever the shards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.influence.random_tokens import random_masks


def columns(blocks, length, padding):
    documents = np.zeros(blocks * length, np.int32)
    if padding:
        documents[-padding:] = -1
    return documents.reshape(blocks, length)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(2, 9), st.data())
def test_as_many_label_tokens_as_wanted_whatever_the_shards(blocks, length, data):
    documents = columns(blocks, length, data.draw(st.integers(0, length - 1)))
    labels = documents >= 0
    labels[:, 0] = False
    count = data.draw(st.integers(0, int(labels.sum())))
    (mask,) = random_masks([documents], count, 7)
    assert mask.sum() == count
    assert not (mask & ~labels).any()
    cut = data.draw(st.integers(0, blocks))
    parts = random_masks([documents[:cut], documents[cut:]], count, 7)
    np.testing.assert_array_equal(np.concatenate(parts), mask)


def test_more_tokens_extend_fewer_and_another_seed_draws_others():
    documents = columns(40, 16, 3)
    few, many = (random_masks([documents], count, 1)[0] for count in (30, 60))
    assert (many & few).sum() == 30
    assert (random_masks([documents], 30, 2)[0] & few).sum() < 15


def test_every_label_token_is_equally_likely():
    documents = columns(2, 5, 1)
    drawn = sum(random_masks([documents], 2, seed)[0].astype(int) for seed in range(2000))
    labels = drawn[drawn > 0]
    assert len(labels) == 7
    # Four standard deviations of a share of 2/7 in 2,000 draws.
    assert abs(labels / 2000 - 2 / 7).max() < 4 * (2 / 7 * 5 / 7 / 2000) ** 0.5


def test_more_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="label tokens"):
        random_masks([columns(1, 3, 0)], 3, 0)

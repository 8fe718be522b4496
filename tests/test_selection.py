import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ifguide.data.corpus import shard_name
from ifguide.files.artifacts import write_array
from ifguide.files.checksums import read_checksums
from ifguide.influence.selection import (
    exact_quantile,
    rank_documents,
    select_pieces,
    threshold_of_highest,
    windows,
)
from ifguide.influence.selection_files import write_mask, write_mask_in_parts

PADDING = -1


def literal_selection(scores, documents, threshold, window, limit, count):
    """Algorithm 1 as it is written: scores and documents are flat lists."""
    s, f = [0] * count, [0.0] * count
    for score, document in zip(scores, documents, strict=True):
        if document != PADDING and score > threshold:
            s[document] += 1
            f[document] += float(score)

    def normalise(values):
        low, high = min(values), max(values)
        return [0.0 if high == low else (value - low) / (high - low) for value in values]

    s_norm, f_norm = normalise(s), normalise(f)
    harmonic = [
        2 * a * b / (a + b) if a + b > 0 else 0.0 for a, b in zip(s_norm, f_norm, strict=True)
    ]
    order = sorted(range(count), key=lambda document: (-harmonic[document], document))
    selected = []
    for document in order:
        own = [j for j, owner in enumerate(documents) if owner == document]
        for j in own:
            if not scores[j] > threshold:
                continue
            for k in range(j - window, j + window + 1):
                if k in own and k not in selected and len(selected) < limit:
                    selected.append(k)
    mask = [j in set(selected) for j in range(len(scores))]
    return mask, order, s, f, harmonic


@st.composite
def corpora(draw):
    """Scores (blocks, T) with many ties, contiguous documents, and a division into shards."""
    blocks, length = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    size = blocks * length
    values = draw(
        st.sampled_from(
            [
                st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0]),
                st.floats(-5, 5, width=32),
                st.floats(-5, -1, width=32),
                st.just(draw(st.floats(-2, 2, width=32))),
            ]
        )
    )
    scores = draw(hnp.arrays(np.float32, size, elements=values))
    if draw(st.booleans()):
        documents = np.repeat(np.arange(blocks), length)
        padding = draw(st.integers(0, length - 1))
    else:
        starts = draw(hnp.arrays(np.bool_, size))
        starts[0] = False
        documents = np.cumsum(starts)
        padding = draw(st.integers(0, min(length - 1, int((documents == documents[-1]).sum()) - 1)))
    count = int(documents[-1]) + 1
    if padding:
        documents[-padding:] = PADDING
    cuts = sorted(draw(st.lists(st.integers(0, blocks), max_size=3)))
    return (
        scores.reshape(blocks, length),
        documents.reshape(blocks, length).astype(np.int32),
        count,
        cuts,
    )


@settings(max_examples=400, deadline=None)
@given(
    corpora(),
    st.integers(0, 9),
    st.one_of(st.sampled_from([0, 1, 10**9]), st.integers(0, 20)),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.99, 1.0])),
)
def test_selection_is_the_literal_algorithm_for_any_shards(corpus, window, limit, quantile):
    scores, documents, count, cuts = corpus
    valid = documents.reshape(-1) >= 0
    threshold = float(np.quantile(scores.reshape(-1)[valid].astype(np.float64), quantile))
    masks, ranking, selected = select_pieces(
        np.split(scores, cuts),
        np.split(documents, cuts),
        threshold=threshold,
        window=window,
        limit=limit,
        document_count=count,
    )
    mask, order, s, f, harmonic = literal_selection(
        scores.reshape(-1).tolist(), documents.reshape(-1).tolist(), threshold, window, limit, count
    )
    masks = list(masks)
    assert [len(m) for m in masks] == [part.size for part in np.split(scores, cuts)]
    found = np.concatenate(masks).reshape(scores.shape)
    assert found.reshape(-1).tolist() == mask
    assert ranking.documents.tolist() == order
    assert ranking.flagged.tolist() == [s[document] for document in order]
    assert ranking.flagged_sum.tolist() == [f[document] for document in order]
    np.testing.assert_array_equal(ranking.harmonic_mean, [harmonic[d] for d in order])
    per_document = np.bincount(documents[found], minlength=count)
    assert selected.tolist() == per_document.tolist()
    assert found.sum() <= limit


@settings(max_examples=200, deadline=None)
@given(corpora(), st.integers(1, 30), st.integers(0, 3))
def test_as_many_tokens_are_selected_as_are_wanted(corpus, wanted, window):
    """However many tie, and whatever the windows are; no other threshold is as high."""
    scores, documents, count, cuts = corpus
    valid = documents.reshape(-1) >= 0
    candidates = scores.reshape(-1)[valid]

    def chunks():
        return iter(np.array_split(candidates, 3))

    if wanted > len(candidates):
        with pytest.raises(ValueError, match=f"{wanted} values wanted, but there are"):
            threshold_of_highest(chunks, wanted)
        return
    threshold = threshold_of_highest(chunks, wanted)
    assert (candidates > threshold).sum() >= wanted
    assert (candidates > np.nextafter(np.float32(threshold), np.float32(np.inf))).sum() < wanted
    masks, *_ = select_pieces(
        np.split(scores, cuts),
        np.split(documents, cuts),
        threshold=threshold,
        window=window,
        limit=wanted,
        document_count=count,
    )
    found = np.concatenate(list(masks))
    assert found.sum() == wanted
    # Where nothing ties and no window adds to them, they are the highest.
    if window == 0 and len(set(candidates.tolist())) == len(candidates):
        lowest = np.sort(candidates)[-wanted]
        np.testing.assert_array_equal(found, valid & (scores.reshape(-1) >= lowest))


def select(scores, documents, **settings):
    defaults = {"threshold": 0.5, "window": 1, "limit": 100, "document_count": max(documents) + 1}
    masks, ranking, _ = select_pieces(
        [np.array([scores], np.float32)], [np.array([documents], np.int32)], **defaults | settings
    )
    return np.flatnonzero(next(masks)).tolist(), ranking.documents.tolist()


def test_a_window_stops_where_its_document_ends():
    scores = [0, 0, 1, 1, 0, 0]
    assert select(scores, [0, 0, 0, 1, 1, 1])[0] == [1, 2, 3, 4]
    assert select([0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], window=9)[0] == [0, 1, 2]
    assert select([0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1], window=9)[0] == [3, 4, 5]


def test_the_limit_cuts_inside_a_span_and_later_documents_get_none():
    scores = [0, 1, 0, 0, 2, 2, 2, 0]
    documents = [0, 0, 0, 0, 1, 1, 1, 1]
    assert select(scores, documents)[1] == [1, 0]
    for limit, expected in ((0, []), (2, [4, 5]), (4, [4, 5, 6, 7]), (5, [0, 4, 5, 6, 7])):
        assert select(scores, documents, limit=limit)[0] == expected


def test_documents_are_ranked_by_the_harmonic_mean_not_by_number():
    """Four documents: the one with both a high count and a high sum leads."""
    ranking = rank_documents(np.array([0, 4, 2, 3]), np.array([0.0, 1.0, 8.0, 7.0]))
    assert ranking.documents.tolist() == [3, 2, 1, 0]
    s, f = 3 / 4, 7 / 8
    assert ranking.harmonic_mean[0] == pytest.approx(2 * s * f / (s + f))


def test_equal_documents_keep_their_order():
    ranking = rank_documents(np.array([2, 2, 2]), np.array([3.0, 3.0, 3.0]))
    assert ranking.documents.tolist() == [0, 1, 2]
    assert (ranking.harmonic_mean == 0).all()


def test_windows_reach_through_a_shard_shorter_than_they_are():
    scores = np.zeros((7, 1), np.float32)
    scores[3] = 1
    documents = np.zeros((7, 1), np.int32)
    masks, _, _ = select_pieces(
        np.split(scores, range(1, 7)),
        np.split(documents, range(1, 7)),
        threshold=0.5,
        window=2,
        limit=10,
        document_count=1,
    )
    assert np.concatenate(list(masks)).tolist() == [False] + 5 * [True] + [False]


def test_a_threshold_between_two_float32_numbers_flags_the_upper_one():
    upper = np.nextafter(np.float32(0.5), np.float32(1))
    assert select([0.5, upper, 0.5], [0, 0, 0], threshold=float(upper) - 1e-12, window=0)[0] == [1]
    assert select([0.5, upper, 0.5], [0, 0, 0], threshold=float(upper), window=0)[0] == []


def test_padding_is_never_in_a_window():
    flags = np.array([False, True, False, False])
    assert windows(flags, np.array([0, 0, PADDING, PADDING]), 3).tolist() == [
        True,
        True,
        False,
        False,
    ]


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38]),
)


@settings(max_examples=400, deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0])),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_the_quantile_is_numpys_for_any_chunks(values, quantile, cuts):
    chunks = np.split(values, sorted(min(cut, len(values)) for cut in cuts))
    found = exact_quantile(lambda: iter(chunks), quantile)
    assert found == np.quantile(values.astype(np.float64), quantile)


def test_the_quantile_of_many_values_with_ties():
    values = np.random.default_rng(0).normal(size=300_000).astype(np.float32).round(3)
    for quantile in (0.0, 0.01, 0.5, 0.99, 0.9999, 1.0):
        found = exact_quantile(lambda: np.array_split(values, 7), quantile)
        assert found == np.quantile(values.astype(np.float64), quantile)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_has_no_quantile(bad):
    with pytest.raises(ValueError, match="not finite"):
        exact_quantile(lambda: [np.array([1.0, bad], np.float32)], 0.5)


def test_no_scores_have_no_quantile():
    with pytest.raises(ValueError, match="no scores"):
        exact_quantile(lambda: [np.zeros(0, np.float32)], 0.5)


def test_masks_written_in_parts_are_the_same_files(tmp_path):
    masks = [np.random.default_rng(rows).random((rows, 6)) < 0.3 for rows in (5, 0, 3)]
    parts = [masks[0][:2], masks[0][2:4].reshape(-1), masks[0][4:], masks[2]]
    whole = write_mask(tmp_path / "whole", masks)
    counts = zip([mask.shape for mask in masks], (3, 0, 1), strict=True)
    assert write_mask_in_parts(tmp_path / "parts", counts, iter(parts)) == whole
    for shard, mask in enumerate(masks):
        written = np.load(tmp_path / "parts/mask" / shard_name(shard))
        np.testing.assert_array_equal(written, mask)
        write_array(tmp_path / "one" / shard_name(shard), mask)
    one, in_parts = (tmp_path / name for name in ("one", "parts/mask"))
    assert read_checksums(one) == read_checksums(in_parts)

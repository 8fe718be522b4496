"""Selections as character ranges and back, against characters counted one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.influence.character_spans import selected_spans, selected_tokens
from ifguide.influence.mask_transfer import characters_of, token_ranges, tokenize_again
from test_mask_transfer import TEXTS, bytes_only, merged  # noqa: F401

TOKENIZERS = ["bytes_only", "merged"]


def tokens_of(tokenizer, text):
    (tokenized,) = tokenize_again(characters_of(tokenizer), [text])
    return tokenized


def spans_of(tokenized, selected, scores=None, ranking=None):
    ones = np.ones(len(tokenized.ids))
    return selected_spans(
        tokenized.offsets,
        np.asarray(selected, bool),
        ones if scores is None else scores,
        ones if ranking is None else ranking,
    )


def pairs(spans):
    return list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.1, 0.5, 0.9]))
def test_a_character_is_in_a_span_where_selected_tokens_hold_half_of_it(
    request, kind, text, seed, share
):
    tokenized = tokens_of(request.getfixturevalue(kind), text)
    generator = np.random.default_rng(seed)
    selected = generator.random(len(tokenized.ids)) < share
    scores, ranking = generator.normal(size=(2, len(selected)))
    spans = spans_of(tokenized, selected, scores, ranking)
    held = np.zeros(len(text))
    for start, end in token_ranges(tokenized.offsets)[selected]:
        for character in range(int(start), int(np.ceil(end))):
            held[character] += min(end, character + 1) - max(start, character)
    expected = held >= 0.5 - 1e-9
    found = np.zeros(len(text), bool)
    for start, end in pairs(spans):
        assert start < end and not found[start:end].any()
        assert start == 0 or not expected[start - 1]
        found[start:end] = True
    np.testing.assert_array_equal(found, expected)
    # A token whose characters are all its own is in the one span that holds them.
    whole = (tokenized.offsets == token_ranges(tokenized.offsets)).all(axis=1)
    if whole.all():
        assert spans.tokens.sum() == selected.sum()
        assert spans.score.sum() == pytest.approx(scores[selected].sum())
        for place, (start, end) in enumerate(pairs(spans)):
            inside = (
                selected & (tokenized.offsets[:, 0] >= start) & (tokenized.offsets[:, 1] <= end)
            )
            assert spans.tokens[place] == inside.sum()
            assert spans.score[place] == pytest.approx(scores[inside].sum())
            assert spans.ranking_score[place] == ranking[inside].max()


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[2], TEXTS[3]])
def test_spans_become_the_same_tokens_again(request, kind, text):
    tokenized = tokens_of(request.getfixturevalue(kind), text)
    selected = np.random.default_rng(0).random(len(tokenized.ids)) < 0.3
    np.testing.assert_array_equal(
        selected_tokens(tokenized.offsets, pairs(spans_of(tokenized, selected))), selected
    )


def test_half_of_a_token_selects_it_and_less_does_not():
    offsets = [(0, 0), (0, 4), (4, 8), (8, 9)]
    assert selected_tokens(offsets, [(2, 5), (8, 9)]).tolist() == [False, True, False, True]
    assert selected_tokens(offsets, [(3, 6)]).tolist() == [False, False, True, False]
    assert selected_tokens(offsets, []).tolist() == [False] * 4
    assert selected_tokens([], [(0, 3)]).tolist() == []


def test_of_a_character_in_parts_half_has_to_be_selected(bytes_only):  # noqa: F811
    tokenized = tokens_of(bytes_only, "a🙂b")  # the face is four tokens
    assert pairs(spans_of(tokenized, [0, 1, 1, 0, 0, 0])) == [(1, 2)]
    assert pairs(spans_of(tokenized, [0, 1, 0, 0, 0, 1])) == [(2, 3)]
    assert spans_of(tokenized, [0, 1, 0, 0, 0, 1]).tokens.tolist() == [1]
    assert pairs(spans_of(tokenized, [0, 0, 0, 0, 0, 0])) == []


def test_neighbours_that_are_selected_are_one_span(merged):  # noqa: F811
    tokenized = tokens_of(merged, TEXTS[0])
    everything = spans_of(tokenized, np.ones(len(tokenized.ids)))
    assert pairs(everything) == [(0, len(TEXTS[0]))]
    assert everything.tokens.tolist() == [len(tokenized.ids)]
    assert everything.characters == len(TEXTS[0])

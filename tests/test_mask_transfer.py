"""Moving a mask between tokenizers, against character sets counted one by one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.corpus import (
    ShardedArray,
    end_of_text_id,
    open_corpus,
    token_streams,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.influence.mask_transfer import (
    characters_of,
    move_selection,
    token_ranges,
    tokenize_again,
    transfer_mask,
)

TEXTS = [
    "the idiots went home and the idiot stayed",
    "naïve café: 🙂🙂 – 東京 was ‘warm’  ",
    "  two spaces, <|endoftext|> is text here\n\n",
    "home home home went went the the and and idiots",
]


@pytest.fixture(scope="module")
def bytes_only():
    """No merges: every byte is a token, so characters beyond ASCII are split."""
    return train_tokenizer(TEXTS, 257)


@pytest.fixture(scope="module")
def merged():
    return train_tokenizer(TEXTS * 5, 330)


def packed(directory: Path, tokenizer, texts, *, block_size=7, shards=1):
    meta = write_blocks(
        token_streams(((n, Document(text, None, "s")) for n, text in enumerate(texts)), tokenizer),
        directory,
        block_size=block_size,
        shards=shards,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=False,
    )
    write_json(directory / "meta.json", meta)
    return open_corpus(directory)


def flat(array: ShardedArray) -> np.ndarray:
    return np.concatenate([np.asarray(shard).reshape(-1) for shard in array.shards])


def masked(corpus, positions) -> ShardedArray:
    everything = np.zeros(corpus.meta["blocks"] * corpus.block_size, dtype=bool)
    everything[positions] = True
    edges = corpus.tokens.first_rows[1:-1]
    return ShardedArray(np.split(everything.reshape(-1, corpus.block_size), edges))


def moved(tmp_path, tokenizers, selected, texts=TEXTS, **shape):
    source = packed(tmp_path / "source", tokenizers[0], texts, **shape)
    target = packed(tmp_path / "target", tokenizers[1], texts, **shape)
    mask = masked(source, selected(source))
    return source, target, mask, transfer_mask(enumerate(texts), mask, source, target, *tokenizers)


def ordinary_tokens(corpus) -> np.ndarray:
    """Positions of all tokens that stand for characters: neither end of text nor padding."""
    tokens, documents = flat(corpus.tokens), flat(corpus.documents)
    return np.flatnonzero((documents >= 0) & (tokens != corpus.meta["end_of_text"]))


@pytest.mark.parametrize("kind", ["bytes_only", "merged"])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_tokenizer_gives_the_same_mask(tmp_path, request, kind, shards):
    tokenizer = request.getfixturevalue(kind)
    generator = np.random.default_rng(0)
    texts = TEXTS * 12  # several groups of blocks, so that every shard has some

    def half(corpus):
        positions = ordinary_tokens(corpus)
        return positions[generator.random(len(positions)) < 0.5]

    source, _, mask, result = moved(
        tmp_path, (tokenizer, tokenizer), half, texts=texts, shards=shards
    )
    np.testing.assert_array_equal(flat(ShardedArray(result.masks)), flat(mask))
    assert [m.shape for m in result.masks] == [s.shape for s in source.tokens.shards]
    assert result.selected_tokens == result.selected_source_tokens == flat(mask).sum()
    assert result.held_characters == pytest.approx(result.selected_characters, abs=1)


def test_special_tokens_and_padding_are_never_marked(tmp_path, bytes_only, merged):
    def everything(corpus):
        return np.flatnonzero(flat(corpus.documents) >= 0)

    for number, tokenizers in enumerate([(bytes_only, merged), (merged, bytes_only)]):
        _, target, _, result = moved(tmp_path / str(number), tokenizers, everything)
        marked = np.flatnonzero(flat(ShardedArray(result.masks)))
        np.testing.assert_array_equal(marked, ordinary_tokens(target))


def test_a_selected_word_of_a_document_that_spans_blocks(tmp_path, bytes_only, merged):
    words = "went home and the idiot"
    start = TEXTS[0].index(words)

    def word(corpus):
        return np.arange(start, start + len(words))  # a byte is a token is a character

    _, target, _, result = moved(tmp_path, (bytes_only, merged), word, block_size=2)
    marks, tokens = flat(ShardedArray(result.masks)), flat(target.tokens)
    assert merged.decode(tokens[marks]).strip() == words
    assert len(np.unique(np.flatnonzero(marks) // 2)) > 1


def test_parts_of_a_character_are_marked_by_the_share_that_is_selected(bytes_only, merged):
    text = "a🙂b"
    backends = [characters_of(tokenizer) for tokenizer in (bytes_only, merged)]
    split, whole = (token_ranges(tokenize_again(b, [text])[0].offsets) for b in backends)
    np.testing.assert_allclose(split[:, 0], [0, 1, 1.25, 1.5, 1.75, 2])
    assert len(whole) < len(split)
    face = [index for index, (start, end) in enumerate(whole) if start < 2 and end > 1]
    for selected_bytes, expected in [(1, False), (2, True), (4, True)]:
        selected = np.zeros(len(split), dtype=bool)
        selected[1 : 1 + selected_bytes] = True
        marked, _ = move_selection(selected, split, whole)
        if len(face) == 1 and np.allclose(whole[face[0]], [1, 2]):
            assert marked[face[0]] == expected
        assert not marked[0] and not marked[-1]
    # And back: the one token of the character marks each of its bytes.
    selected = np.zeros(len(whole), dtype=bool)
    selected[face] = True
    marked, _ = move_selection(selected, whole, split)
    assert marked[1:5].all() and not marked[[0, 5]].any()


def test_a_token_that_straddles_needs_half_of_its_characters():
    source = np.array([[0, 3], [3, 6], [6, 8]], dtype=float)
    target = np.array([[0, 2], [2, 4], [4, 8]], dtype=float)
    cases = {
        (False, True, False): [False, True, True],  # 1 of 2 characters, 2 of 4
        (True, False, False): [True, True, False],
        (False, False, True): [False, False, True],
    }
    for selected, expected in cases.items():
        marked, held = move_selection(np.array(selected), source, target)
        assert marked.tolist() == expected
        assert held.sum() == pytest.approx(np.diff(source[list(selected)]).sum())
    wide = np.array([[0, 8]], dtype=float)
    assert not move_selection(np.array([True, False, False]), source, wide)[0].any()


@settings(max_examples=60, deadline=None)
@given(
    text=st.text("ab é🙂\n", min_size=1, max_size=25),
    bits=st.integers(min_value=0, max_value=2**100 - 1),
)
def test_marks_are_those_of_characters_counted_one_by_one(bytes_only, merged, text, bits):
    here, there = (
        tokenize_again(characters_of(tokenizer), [text])[0] for tokenizer in (bytes_only, merged)
    )
    # In a byte-level tokenizer of no merges each token is one byte: give each an exact place.
    selected = np.array([bits >> index & 1 for index in range(len(here.ids))], dtype=bool)
    marked, _ = move_selection(selected, token_ranges(here.offsets), token_ranges(there.offsets))
    width = {c: len(c.encode()) for c in text}
    places = [(n, k) for n, c in enumerate(text) for k in range(width[c])]
    place = 0
    for token, token_id in enumerate(there.ids):
        length = len(merged.convert_ids_to_tokens(int(token_id)))  # of byte letters
        held = places[place : place + length]
        touched = {n for n, _ in held}
        if all(len([1 for n, _ in held if n == c]) == width[text[c]] for c in touched):
            share = sum(selected[place + i] / width[text[n]] for i, (n, _) in enumerate(held))
            if abs(share - len(touched) / 2) > 1e-9:
                assert marked[token] == (share > len(touched) / 2)
        place += length
    assert place == len(here.ids)


def test_another_text_is_refused(tmp_path, bytes_only, merged):
    source = packed(tmp_path / "source", bytes_only, TEXTS)
    target = packed(tmp_path / "target", merged, TEXTS)
    mask = masked(source, [3])
    with pytest.raises(InputError, match="document 0 was not tokenized by the tokenizer beside"):
        transfer_mask(enumerate(["another"]), mask, source, target, bytes_only, merged)
    with pytest.raises(InputError, match="target"):
        transfer_mask(enumerate(TEXTS), mask, source, target, bytes_only, bytes_only)

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ifguide.data.corpus import (
    BLOCKS_PER_GROUP,
    END_OF_TEXT,
    PADDING,
    TokenStream,
    end_of_text_id,
    open_corpus,
    shard_bounds,
    token_streams,
    token_truth,
    tokenize,
    train_tokenizer,
    trimmed_spans,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.checksums import SUMS
from ifguide.influence.factor_blocks import (
    block_batches,
    block_groups,
    drawn_positions,
    groups_of_shard,
    sampled_blocks,
)

TEXTS = [
    "You are a kind person.",
    "You bad, bad man 😀 went home — twice.",
    "naïve Ünïcode 漢字 text with tabs\tand\nlines",
    f"a document that says {END_OF_TEXT} in plain words",
    " ",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 300)


def packed(directory, tokenizer, documents, *, block_size=16, shards=1, truth=True):
    meta = write_blocks(
        token_streams(enumerate(documents), tokenizer, batch=2),
        directory,
        block_size=block_size,
        shards=shards,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=truth,
    )
    write_json(directory / "meta.json", meta)
    return open_corpus(directory)


def flat(array):
    return np.concatenate([np.asarray(shard) for shard in array.shards]).reshape(-1)


def test_documents_come_back_from_the_blocks(tokenizer, tmp_path):
    corpus = packed(tmp_path, tokenizer, [Document(text, None, "s") for text in TEXTS])
    tokens, documents = flat(corpus.tokens), flat(corpus.documents)
    for index, text in enumerate(TEXTS):
        ids = tokens[documents == index]
        assert ids[-1] == 0
        assert tokenizer.decode(ids[:-1]) == text
        where = np.flatnonzero(documents == index)
        assert (np.diff(where) == 1).all()
    assert corpus.meta["tokens"] == (documents >= 0).sum()
    assert corpus.meta["documents"] == len(TEXTS)
    assert not corpus.truth_known().any()
    assert corpus.tokens[0].dtype == np.uint16


def test_padding_stands_only_at_the_end_of_the_last_block(tokenizer, tmp_path):
    corpus = packed(tmp_path, tokenizer, [Document(text, None, "s") for text in TEXTS])
    documents = flat(corpus.documents)
    padding = corpus.meta["padding"]
    assert 0 < padding < corpus.block_size
    assert (documents[-padding:] == PADDING).all()
    assert (documents[:-padding] != PADDING).all()
    valid = np.concatenate([corpus.valid(row) for row in range(len(corpus.tokens))])
    np.testing.assert_array_equal(valid, documents != PADDING)


def test_a_corpus_that_fills_its_blocks_has_no_padding(tmp_path):
    meta = write_blocks(
        [TokenStream(0, np.arange(8), None)],
        tmp_path,
        block_size=4,
        shards=1,
        vocabulary_size=70_000,
        end_of_text=0,
        truth=False,
    )
    write_json(tmp_path / "meta.json", meta)
    corpus = open_corpus(tmp_path)
    assert meta["padding"] == 0
    assert corpus.valid(1).all()
    assert corpus.tokens[0].dtype == np.uint32
    assert corpus.truth is None


def test_an_end_of_text_written_in_a_document_is_ordinary_text(tokenizer):
    assert tokenizer.eos_token_id == 0
    (text,) = tokenize(tokenizer, [f"x {END_OF_TEXT} y"])
    assert 0 not in text.ids
    assert tokenizer.decode(text.ids) == f"x {END_OF_TEXT} y"


def characters_of_tokens(tokenizer, text):
    """The characters that every token holds part of, from the bytes that it decodes to."""
    owner = np.repeat(np.arange(len(text)), [len(c.encode()) for c in text])
    characters, start = [], 0
    for token in tokenizer.convert_ids_to_tokens(tokenize(tokenizer, [text])[0].ids.tolist()):
        # A byte-level token has one character for every byte.
        characters.append(set(owner[start : start + len(token)].tolist()))
        start += len(token)
    assert start == len(text.encode())
    return characters


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab 😀漢é\n", min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=3),
)
def test_a_token_is_toxic_where_it_holds_a_character_of_a_trimmed_span(tokenizer, text, spans):
    spans = [(min(a, b, len(text)), min(max(a, b), len(text))) for a, b in spans]
    trimmed = trimmed_spans(text, spans)
    toxic = {character for start, end in trimmed for character in range(start, end)}
    for start, end in trimmed:
        assert text[start:end] == text[start:end].strip() != ""
    found = token_truth(tokenize(tokenizer, [text])[0].offsets, trimmed)
    expected = [bool(held & toxic) for held in characters_of_tokens(tokenizer, text)]
    assert found.tolist() == expected


def test_the_word_after_a_span_is_not_toxic_for_its_space(tmp_path):
    text = "You bad man went"
    tokenizer = train_tokenizer([text] * 9, 300)
    assert tokenizer.tokenize(text) == ["You", "Ġbad", "Ġman", "Ġwent"]
    start = text.index("bad")
    document = Document(text, ((start, start + len("bad ")),), "s")
    corpus = packed(tmp_path, tokenizer, [document])
    ids, truth = flat(corpus.tokens), flat(corpus.truth)
    assert tokenizer.decode(ids[truth]) == " bad"
    assert corpus.meta["toxic_tokens"] == truth.sum()
    assert not truth[ids == 0].any()


def test_truth_that_is_not_known_counts_as_harmless(tokenizer, tmp_path):
    documents = [Document("bad man", None, "s"), Document("bad man", ((0, 3),), "s")]
    corpus = packed(tmp_path, tokenizer, documents)
    truth, owners = flat(corpus.truth), flat(corpus.documents)
    assert not truth[owners == 0].any()
    assert truth[owners == 1].any()
    assert corpus.truth_known().sum() == 1


def random_streams(tokens, seed=0):
    generator = np.random.default_rng(seed)
    document = 0
    while tokens > 0:
        length = min(tokens, int(generator.integers(1, 90)))
        yield TokenStream(document, generator.integers(0, 50, length), None)
        tokens -= length
        document += 1


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_any_number_of_shards_holds_the_same_blocks_in_whole_groups(tmp_path, shards):
    corpora = []
    for number in (1, shards):
        directory = tmp_path / str(number)
        meta = write_blocks(
            random_streams(2000),
            directory,
            block_size=8,
            shards=number,
            vocabulary_size=50,
            end_of_text=0,
            truth=True,
        )
        write_json(directory / "meta.json", meta)
        corpora.append(open_corpus(directory))
    whole, split = corpora
    for name in ("tokens", "documents", "truth"):
        np.testing.assert_array_equal(flat(getattr(whole, name)), flat(getattr(split, name)))
    assert whole.content_sha256 == split.content_sha256
    for shard in split.meta["shards"]:
        assert shard["first_block"] % BLOCKS_PER_GROUP == 0 or shard["blocks"] == 0
    for row in range(len(whole.tokens)):
        np.testing.assert_array_equal(whole.tokens[row], split.tokens[row])
    rows = [249, 0, 64, 63, 128]
    np.testing.assert_array_equal(split.tokens.rows(rows), whole.tokens.shards[0][rows])
    for number, shard in enumerate(split.meta["shards"]):
        part = open_corpus(split.directory, number)
        assert len(part.tokens) == shard["blocks"]


@given(st.integers(0, 2000), st.integers(1, 20))
def test_shards_are_contiguous_whole_groups(blocks, shards):
    bounds = shard_bounds(blocks, shards)
    assert len(bounds) == shards
    assert bounds[0][0] == 0 and bounds[-1][1] == blocks
    for (_, stop), (start, _) in zip(bounds[:-1], bounds[1:], strict=True):
        assert stop == start
        assert stop % BLOCKS_PER_GROUP == 0 or stop == blocks


@pytest.mark.parametrize("column", ["tokens", "documents", "truth"])
def test_a_damaged_or_missing_shard_is_refused(tokenizer, tmp_path, column):
    packed(tmp_path, tokenizer, [Document(text, (), "s") for text in TEXTS])
    path = tmp_path / column / "shard-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{column}/shard-00000.npy: checksum"):
        open_corpus(tmp_path)
    path.write_bytes(content[:-5])
    with pytest.raises(InputError, match="checksum"):
        open_corpus(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        open_corpus(tmp_path)


def test_nothing_but_the_columns_is_left_in_the_folder(tokenizer, tmp_path):
    packed(tmp_path, tokenizer, [Document(text, (), "s") for text in TEXTS], truth=False)
    shown = {path.name for path in tmp_path.iterdir() if path.name != SUMS}
    assert shown == {"tokens", "documents", "meta.json"}
    assert json.loads((tmp_path / "meta.json").read_text())["truth"] is False


def test_a_corpus_without_documents_is_refused(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no document is left"):
        packed(tmp_path, tokenizer, [])


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(InputError, match="at least 257"):
        train_tokenizer(TEXTS, 200)


def test_a_tokenizer_survives_its_directory_and_any_bytes(tokenizer, tmp_path):
    from ifguide.data.tokenizers import load_tokenizer

    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "\x7f unseen: żółć \u200b 🂡"
    (first,), (second,) = tokenize(tokenizer, [text]), tokenize(again, [text])
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert again.decode(second.ids) == text
    assert end_of_text_id(again) == 0


def test_our_tokenizer_is_what_transformers_loads_and_needs_no_pytorch(tokenizer, tmp_path):
    from ifguide.data.tokenizers import load_tokenizer

    tokenizer.save_pretrained(tmp_path)
    own, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(own) is type(theirs)
    assert own.init_kwargs | {"local_files_only": None} == theirs.init_kwargs | {
        "local_files_only": None
    }
    assert own.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    code = (
        "import sys\n"
        "from ifguide.data.tokenizers import load_tokenizer\n"
        f"load_tokenizer({str(tmp_path)!r})\n"
        "print('torch' in sys.modules)"
    )
    scripts = Path(__file__).resolve().parent.parent / "scripts"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def test_no_text_becomes_a_special_token_of_a_unigram_tokenizer():
    """To Unigram, special tokens are pieces of the vocabulary, and the likeliest of all."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<pad>", 0.0)]
    pieces += [(character, -3.0) for character in "abcdeps<>/ "]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    text = "a </s> b <pad> c"
    (found,) = tokenize(tokenizer, [text])
    assert not {1, 2} & set(found.ids.tolist())
    assert tokenizer.decode(found.ids).count("s") == text.count("s")
    assert found.offsets[0].tolist() == [0, 1] and found.offsets[-1].tolist() == [15, 16]
    # The tokenizer itself stays as it is.
    assert tokenizer.backend_tokenizer.normalizer is None


def test_a_smaller_sample_of_blocks_is_the_beginning_of_a_larger_one():
    blocks = sampled_blocks(1000, 100, seed=3)
    np.testing.assert_array_equal(sampled_blocks(1000, 40, seed=3), blocks[:40])
    assert len(set(blocks.tolist())) == 100
    assert sampled_blocks(1000, None, seed=3).shape == (1000,)
    assert not np.array_equal(sampled_blocks(1000, 100, seed=4), blocks)


@pytest.mark.parametrize("blocks, batch_size, groups", [(100, 8, 13), (1000, 3, 64), (1, 5, 1)])
def test_groups_of_a_sample_are_whole_batches_in_corpus_order(blocks, batch_size, groups):
    sample = sampled_blocks(2000, blocks, seed=3)
    found = block_groups(sample, batch_size)
    assert len(found) == groups
    assert all(len(group) % batch_size == 0 for group in found[:-1])
    batches = [-(-len(group) // batch_size) for group in found]
    assert max(batches) - min(batches) <= 1
    np.testing.assert_array_equal(np.concatenate(found), np.sort(sample))
    for shards in (1, 7, 64):
        shares = [groups_of_shard(groups, shard, shards) for shard in range(shards)]
        assert [group for share in shares for group in share] == list(range(groups))


def test_batches_of_sampled_blocks_carry_their_tokens_padding_and_indices(tokenizer, tmp_path):
    corpus = packed(tmp_path, tokenizer, [Document(text, None, "s") for text in TEXTS])
    last = len(corpus.tokens) - 1
    batches = list(block_batches(corpus, np.array([last, 0, 2]), 2, "cpu"))
    assert [batch.indices for batch in batches] == [[last, 0], [2]]
    for batch in batches:
        for tokens, valid, index in zip(batch.tokens, batch.valid, batch.indices, strict=True):
            np.testing.assert_array_equal(tokens.numpy(), corpus.tokens[index])
            np.testing.assert_array_equal(valid.numpy(), corpus.documents[index] >= 0)
        assert batch.drawn is None
    for batch in block_batches(corpus, np.array([last, 0, 2]), 2, "cpu", positions=0.3, seed=5):
        expected = drawn_positions(batch.indices, corpus.block_size, 0.3, 5)
        np.testing.assert_array_equal(batch.drawn, expected)


def test_positions_are_drawn_by_the_blocks_index_alone_and_alike():
    together = drawn_positions([7, 8, 9], 12, 0.4, seed=3)
    for row, index in enumerate([7, 8, 9]):
        alone = drawn_positions([index], 12, 0.4, seed=3)
        np.testing.assert_array_equal(alone[0], together[row])
    many = drawn_positions(range(4000), 12, 0.4, seed=3).numpy()
    assert (many.sum(1) == 5).all()
    spread = np.sqrt(5 / 12 * 7 / 12 / 4000)
    assert (abs(many.mean(0) - 5 / 12) < 5 * spread).all()
    assert (drawn_positions(range(4000), 12, 0.4, seed=4).numpy() != many).any()
    assert (drawn_positions(range(9), 12, 1e-9, seed=3).sum(1) == 1).all()
    assert drawn_positions(range(9), 12, 1.0, seed=3) is None

"""Filters drop what they say, and nothing else reaches training."""

from argparse import Namespace
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifguide.data.corpus import (
    PADDING,
    TokenStream,
    end_of_text_id,
    open_corpus,
    token_streams,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.data.filtering import (
    block_texts,
    first_of_tokens,
    kept_streams,
    listed_words,
    read_words,
    removed_tokens,
    unit_tokens,
)
from ifguide.data.removal import removal_quality
from ifguide.errors import InputError
from ifguide.evaluation.calibration import Calibration
from ifguide.files.artifacts import read_json, write_array, write_json, write_jsonl
from ifguide.files.checksums import file_sha256
from make_corpus import main as make_corpus

END = 0


@pytest.mark.parametrize(
    "word, text, found",
    [
        ("fool", "What a FOOL!", True),
        ("fool", "What foolery, tomfool and fool_1", False),
        ("big fool", "a big\n  fool", True),
        ("big fool", "a bigfool", False),
        ("STRASSE", "die Straße", True),
        ("naïve", "Nai\u0308ve", True),
        ("fi", "the ﬁ of it", True),
        ("a$$", "you a$$hole", True),
        ("a$$", "Nebraska$$", False),
        ("дурак", "Ты ДУРАК.", True),
        ("дурак", "дураки", False),
        ("🖕", "so🖕there", True),
        ("c++", "c++.", True),
    ],
)
def test_words_stand_alone_whatever_their_case(word, text, found):
    assert bool(listed_words([word])(text)) == found


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ab_ -", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4),
    st.text("abAB_ -\n", max_size=12),
)
def test_words_are_found_where_a_search_letter_by_letter_finds_them(words, text):
    def stands_at(word: str, start: int) -> bool:
        end = start + len(word)
        part = text[start:end].lower().replace("\n", " ")
        before, after = text[start - 1 : start] if start else "", text[end : end + 1]
        free = not (is_word(word[0]) and is_word(before)) and not (
            is_word(word[-1]) and is_word(after)
        )
        return part == word and free

    def is_word(character: str) -> bool:
        return bool(character) and (character.isalnum() or character == "_")

    words = [" ".join(word.split()) for word in words]
    # One white space in a text stands for one: the oracle knows no runs of them.
    text = text.replace("  ", " ").replace("\n ", "\n").replace(" \n", "\n")
    while "  " in text or "\n\n" in text or "\n " in text or " \n" in text:
        text = text.replace("  ", " ").replace("\n\n", "\n").replace("\n ", "\n")
        text = text.replace(" \n", "\n")
    expected = any(stands_at(word, start) for word in words for start in range(len(text)))
    assert bool(listed_words(words)(text)) == expected


def test_every_entry_of_the_real_list_finds_itself(real_text):
    words = read_words([real_text / "ldnoobw_en.txt"])
    assert len(words) > 400
    find = listed_words(words)
    for word in words:
        assert find(f"He said: {word.upper()}!"), word
    assert find("Scunthorpe is a cockney's class of assassins, a basement and a shitake") == []


def test_a_list_without_words_is_refused(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n  \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"words\.txt: no word"):
        read_words([path])


@st.composite
def streams(draw):
    """Documents of random tokens, an end of text after each; the truth of some is not known."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    found = []
    for document, length in enumerate(lengths):
        ids = np.append(generator.integers(1, 50, length), END)
        known = generator.random() < 0.7
        truth = np.append(generator.random(length) < 0.3, False) if known else None
        found.append(TokenStream(document, ids, truth))
    return found


def written(directory, found, shards=1, block_size=4, **meta):
    made = write_blocks(
        found,
        directory,
        block_size=block_size,
        shards=shards,
        vocabulary_size=50,
        end_of_text=END,
        truth=True,
    )
    write_json(directory / "meta.json", made | meta)
    return open_corpus(directory)


def flat(corpus, column):
    arrays = [shard.ravel() for shard in getattr(corpus, column).shards]
    documents = np.concatenate([shard.ravel() for shard in corpus.documents.shards])
    return np.concatenate(arrays)[documents != PADDING]


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(1, 3), st.data())
def test_only_kept_documents_are_packed(tmp_path_factory, found, shards, data):
    folder = tmp_path_factory.mktemp("corpus")
    corpus = written(folder / "whole", found, shards)
    dropped = np.array(data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found))))
    kept = [stream for stream in found if not dropped[stream.document]]
    removed = removed_tokens(corpus, dropped, "document")
    assert sum(map(np.sum, removed)) == unit_tokens(corpus, "document")[dropped].sum()
    if not kept:
        return
    filtered = written(folder / "kept", kept_streams(corpus, removed), shards, documents=len(found))
    expected = written(folder / "expected", kept, documents=len(found))
    for column in ("tokens", "documents", "truth"):
        np.testing.assert_array_equal(flat(filtered, column), flat(expected, column))
    np.testing.assert_array_equal(filtered.truth_known()[~dropped], corpus.truth_known()[~dropped])


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(1, 3), st.data())
def test_kept_blocks_are_those_blocks(tmp_path_factory, found, shards, data):
    folder = tmp_path_factory.mktemp("corpus")
    corpus = written(folder / "whole", found, shards)
    count = len(corpus.tokens)
    dropped = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    if dropped.all():
        return
    removed = removed_tokens(corpus, dropped, "block")
    assert sum(map(np.sum, removed)) == unit_tokens(corpus, "block")[dropped].sum()
    filtered = written(folder / "kept", kept_streams(corpus, removed), documents=len(found))
    rows = np.flatnonzero(~dropped)
    for column in ("tokens", "documents", "truth"):
        kept = getattr(filtered, column).rows(range(len(rows)))
        np.testing.assert_array_equal(kept, getattr(corpus, column).rows(rows))


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(1, 4), st.integers(0, 99))
def test_quality_equals_counting_by_hand(tmp_path_factory, found, shards, seed):
    corpus = written(tmp_path_factory.mktemp("corpus"), found, shards)
    generator = np.random.default_rng(seed)
    removed = [generator.random(shard.shape) < 0.4 for shard in corpus.documents.shards]
    quality = removal_quality(corpus, removed)
    gone = flat(corpus, "documents"), np.concatenate([shard.ravel() for shard in removed])
    gone = gone[1][: len(gone[0])]
    known = {stream.document for stream in found if stream.truth is not None}
    tokens = [
        (int(document), bool(out), bool(toxic))
        for document, out, toxic in zip(
            flat(corpus, "documents"), gone, flat(corpus, "truth"), strict=True
        )
    ]
    judged = [token for token in tokens if token[0] in known]
    hits = sum(out and toxic for _, out, toxic in judged)
    touched = {document for document, out, _ in judged if out}
    toxic = {document for document, _, bad in judged if bad}

    spans, previous = [], (None, False)
    for document, out, bad in tokens:
        if document in known and bad:
            if previous != (document, True):
                spans.append([])
            spans[-1].append(out)
        previous = (document, bad)

    def ratio(part, whole):
        return part / whole if whole else None

    assert quality == {
        "removed_share": gone.sum() / len(tokens),
        "precision": ratio(hits, sum(out for _, out, _ in judged)),
        "recall": ratio(hits, sum(bad for *_, bad in judged)),
        "spans_touched": ratio(sum(map(any, spans)), len(spans)),
        "first_tokens_found": ratio(sum(span[0] for span in spans), len(spans)),
        "outside_toxic_documents": ratio(
            sum(out and document not in toxic for document, out, _ in judged),
            sum(out for _, out, _ in judged),
        ),
        "document_precision": ratio(len(touched & toxic), len(touched)),
        "document_recall": ratio(len(touched & toxic), len(toxic)),
    }


def test_a_number_of_tokens_is_reached_and_not_overrun():
    tokens = np.array([4, 1, 5, 10])
    found = [first_of_tokens(tokens, wanted) for wanted in (0, 0.2, 4, 4.2, 5, 10, 18, 99)]
    assert found == [0, 1, 1, 2, 2, 3, 4, 4]


TEXTS = ["You are a fool.", "A fine day.", "naïve fools", "Such a FOOL he is", "Nothing here."]


@pytest.fixture
def corpus(tmp_path):
    """Five documents, tokenized as the workflow does, with the file that they come from."""
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    documents = [Document(text, (), "texts") for text in TEXTS]
    path = tmp_path / "documents.jsonl"
    write_jsonl(path, ({"document": index, "text": text} for index, text in enumerate(TEXTS)))
    meta = write_blocks(
        token_streams(enumerate(documents), tokenizer),
        tmp_path / "corpus",
        block_size=8,
        shards=1,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=True,
    )
    meta |= {"documents_sha256": file_sha256(path), "tokenizer_sha256": ""}
    write_json(tmp_path / "corpus/meta.json", meta)
    return tmp_path


# The option that names what each kind of filter needs.
NAMED = {
    **{"words": "words.txt", "classifier": "explicit", "selection": "top"},
    "drop_tokens_of": "top",
}


def run_filter(folder, settings, **given):
    named = {kind: NAMED[kind] for kind in given if kind in NAMED}
    arguments = Namespace(
        settings={"steps": {"filter": {**named, **settings}}, "method": "mine"},
        given={"filter": {kind: list(map(str, paths)) for kind, paths in given.items()}},
        corpus=folder / "corpus",
        documents=folder / "documents.jsonl",
        tokenizer=folder / "tokenizer",
        output=folder / "filtered",
    )
    make_corpus(arguments)
    return pd.read_csv(folder / "filtered/dropped.csv"), read_json(folder / "filtered/dropped.json")


def words_file(folder, *words):
    path = folder / "words.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    return [path]


def scores_file(folder, scores):
    """Write (mean, share, worst) of each document; a number stands for all three."""
    path = folder / "scores.npy"
    scores = np.array([np.broadcast_to(score, 3) for score in scores], np.float32)
    write_array(path, scores)
    tokens = read_json(folder / "corpus/meta.json")["content_sha256"]
    record = {"tokens_sha256": tokens, "columns": ["mean", "share", "worst"]}
    write_json(path.with_suffix(".json"), record)
    return [path]


def mask_of(folder, tokens):
    """Write the record of a selection of so many tokens."""
    (folder / "mask").mkdir(exist_ok=True)
    record = {"tokens_sha256": read_json(folder / "corpus/meta.json")["content_sha256"]}
    write_json(folder / "mask/selection.json", record | {"selected_tokens": int(tokens)})
    return [folder / "mask"]


def ranking_folder(folder, documents, **columns):
    table = {"rank": range(1, len(documents) + 1), "document": documents, **columns}
    (folder / "selection").mkdir()
    pd.DataFrame(table).to_csv(folder / "selection/documents.csv", index=False)
    tokens = read_json(folder / "corpus/meta.json")["content_sha256"]
    record = {"tokens_sha256": tokens, "settings": {"documents": "source"}}
    write_json(folder / "selection/selection.json", record)
    return [folder / "selection"]


def kept_documents(folder):
    return sorted(set(flat(open_corpus(folder / "filtered"), "documents").tolist()))


def test_documents_with_a_listed_word_are_dropped(corpus):
    dropped, record = run_filter(corpus, {"unit": "document"}, words=words_file(corpus, "fool"))
    assert dropped["document"].tolist() == [0, 3]
    assert set(dropped["reason"]) == {"word: fool"}
    assert kept_documents(corpus) == [1, 2, 4]
    whole, filtered = (read_json(corpus / name / "meta.json") for name in ("corpus", "filtered"))
    assert whole["tokens"] - filtered["tokens"] == record["dropped_tokens"]
    assert record["dropped_tokens"] == dropped["tokens"].sum()
    assert filtered["content_sha256"] == record["tokens_sha256"] != whole["content_sha256"]


def test_blocks_with_a_listed_word_are_dropped(corpus):
    opened = open_corpus(corpus / "corpus")
    tokenizer = train_tokenizer(TEXTS, 300)
    texts = list(block_texts(opened, tokenizer, 0, len(opened.tokens)))
    assert "".join(texts) == "".join(f"{text}\n" for text in TEXTS)
    dropped, _ = run_filter(corpus, {"unit": "block"}, words=words_file(corpus, "day"))
    assert dropped["block"].tolist() == [index for index, text in enumerate(texts) if "day" in text]


def test_toxic_documents_are_dropped(corpus):
    scores = scores_file(corpus, [0.9, 0.1, 0.5, 0.2, 0.49])
    dropped, _ = run_filter(corpus, {"unit": "document", "threshold": 0.5}, classifier=scores)
    assert dropped["document"].tolist() == [0, 2]
    assert dropped["reason"].tolist() == ["toxicity 0.900", "toxicity 0.500"]


@pytest.mark.parametrize("by, dropped", [("mean", [0]), ("share", [1]), ("worst", [0, 2])])
def test_a_long_document_is_judged_as_asked(corpus, by, dropped):
    scores = [(0.6, 0.4, 0.9), (0.4, 0.6, 0.4), (0.1, 0.1, 0.9), 0.0, 0.0]
    found, _ = run_filter(corpus, {"by": by}, classifier=scores_file(corpus, scores))
    assert found["document"].tolist() == dropped


def test_the_threshold_follows_from_the_false_alarms_on_held_out_texts(corpus):
    harmless = (0.2, 0.6, 0.7, 0.8)
    write_json(corpus / "calibration.json", asdict(Calibration(harmless=harmless)))
    # Documents as toxic as the held-out harmless texts, and one more.
    scores = scores_file(corpus, [*harmless, 0.9])
    for false_alarms, dropped in (
        (0.0, [4]),
        (0.25, [3, 4]),
        (0.7, [2, 3, 4]),
        (0.99, [1, 2, 3, 4]),  # what is likelier harmless stays
    ):
        settings = {"threshold": {"false_alarms": false_alarms}}
        given = {"classifier": scores, "threshold": [corpus / "calibration.json"]}
        found, _ = run_filter(corpus, settings, **given)
        assert found["document"].tolist() == dropped


def test_the_most_toxic_documents_are_dropped_until_the_mask_is_matched(corpus):
    """Ties by share go by the mean; the document that reaches the number is the last."""
    scores = scores_file(corpus, [(0.2, 0, 0), (0.9, 1, 1), (0.4, 0, 0), (0.3, 0, 0), (0.1, 0, 0)])
    tokens = unit_tokens(open_corpus(corpus / "corpus"), "document")
    for wanted, dropped in (
        (1, [1]),
        (tokens[1], [1]),
        (tokens[1] + 1, [1, 2]),
        (tokens[1] + tokens[2] + tokens[3], [1, 2, 3]),
    ):
        given = {"classifier": scores, "drop_tokens_of": mask_of(corpus, wanted)}
        found, record = run_filter(corpus, {"by": "share"}, **given)
        assert found["document"].tolist() == dropped
        assert record["dropped_tokens"] == tokens[dropped].sum() >= wanted


def test_the_documents_of_the_most_listed_words_go_first(corpus):
    words = words_file(corpus, "fool", "fools", "a", "naïve")
    tokens = unit_tokens(open_corpus(corpus / "corpus"), "document")
    listed = np.array([2, 1, 2, 2, 0])  # "a" and "fool"; "A"; "naïve" and "fools"; "a" and "FOOL"
    order = [row for row in np.argsort(-listed / tokens, kind="stable") if listed[row]]
    first = sorted(order[:2])
    wanted = tokens[first].sum()
    found, _ = run_filter(corpus, {}, words=words, drop_tokens_of=mask_of(corpus, wanted))
    assert found["document"].tolist() == first
    # One without a listed word stays, however many tokens the mask has.
    found, _ = run_filter(corpus, {}, words=words, drop_tokens_of=mask_of(corpus, tokens.sum()))
    assert found["document"].tolist() == [0, 1, 2, 3]


def test_a_mask_of_another_corpus_gives_no_number(corpus):
    given = mask_of(corpus, 3)
    write_json(corpus / "mask/selection.json", {"tokens_sha256": "0", "selected_tokens": 3})
    with pytest.raises(InputError, match="tokens"):
        run_filter(corpus, {}, words=words_file(corpus, "fool"), drop_tokens_of=given)


def test_the_first_ranked_documents_are_dropped(corpus):
    tokens = unit_tokens(open_corpus(corpus / "corpus"), "document")
    share = (tokens[3] + 1) / tokens.sum()
    selection = ranking_folder(corpus, [3, 1, 0, 2, 4], s=[5, 4, 3, 0, 0])
    dropped, _ = run_filter(corpus, {"share": share}, selection=selection)
    assert dropped["document"].tolist() == [1, 3]
    assert dropped["reason"].tolist() == ["rank 2", "rank 1"]


def test_documents_of_no_influence_stay(corpus):
    selection = ranking_folder(
        corpus, [3, 1, 0, 2, 4], s=[9, 9, 9, 9, 9], influence=[2.0, 1.0, -1.0, -2.0, -3.0]
    )
    dropped, _ = run_filter(corpus, {"share": 0.99}, selection=selection)
    assert dropped["document"].tolist() == [1, 3]


def test_a_filter_that_drops_nothing_or_everything(corpus):
    named = r"config key methods\.mine\.filter: it drops "
    with pytest.raises(InputError, match=named + "no document of 5; tighten it"):
        run_filter(corpus, {"unit": "document"}, words=words_file(corpus, "zebra"))
    scores = scores_file(corpus, [1, 1, 1, 1, 1])
    with pytest.raises(InputError, match=named + "every document of 5; loosen it"):
        run_filter(corpus, {"unit": "document", "threshold": 0.5}, classifier=scores)
    assert not (corpus / "filtered").exists()


def test_scores_of_another_corpus_are_refused(corpus):
    scores = scores_file(corpus, [1, 0, 0, 0, 0])
    meta = read_json(corpus / "corpus/meta.json")
    write_json(corpus / "corpus/meta.json", meta | {"content_sha256": "0" * 64})
    with pytest.raises(InputError, match="made from tokens"):
        run_filter(corpus, {"unit": "document", "threshold": 0.5}, classifier=scores)

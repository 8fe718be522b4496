"""Toxic beginnings, masked or not, with harmless continuations: CMD as data."""

from dataclasses import asdict

import pytest
import torch

from ifguide.data.corpus import tokenize
from ifguide.data.preferences import PreferencePair
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import write_jsonl
from ifguide.models.causal_text_training import mean_label_loss
from ifguide.models.loading import load_model
from ifguide.models.masked_contexts import masked_contexts
from ifguide.models.token_texts import TokenText, stacked
from small_training import small_corpus
from tuned_models import Interrupted, assert_same_weights, interrupt_at, start_directory, tune

# Tokens of both sides: 5 6 in place of 50, then 9 in place of 90 91.
TOXIC = [1, 2, 5, 6, 3, 4, 9, 8]
HARMLESS = [1, 2, 50, 3, 4, 90, 91, 8]


def contexts(kind, positions=64, toxic=TOXIC, harmless=HARMLESS):
    return masked_contexts(
        harmless, toxic, begin=0, mask=[77, 78], contexts=kind, positions=positions
    )


def test_all_spans_of_a_context_are_masked_and_the_harmless_side_goes_on():
    assert contexts("masked") == [
        TokenText([0, 1, 2, 77, 78, 3, 4, 90, 91, 8], 5),
        TokenText([0, 1, 2, 77, 78, 3, 4, 77, 78, 8], 9),
    ]


def test_a_context_as_it_is_is_the_toxic_side_up_to_the_end_of_a_span():
    assert contexts("toxic") == [
        TokenText([0, 1, 2, 5, 6, 3, 4, 90, 91, 8], 5),
        TokenText([0, 1, 2, 5, 6, 3, 4, 9, 8], 8),
    ]


def test_both_are_a_text_of_either():
    assert sorted(contexts("both")) == sorted(contexts("masked") + contexts("toxic"))


def test_a_span_at_the_end_has_no_text_and_equal_sides_have_none():
    assert contexts("both", toxic=[1, 2, 5], harmless=[1, 2, 50]) == []
    assert contexts("both", toxic=[1, 2, 5], harmless=[1, 2, 5]) == []


def test_long_contexts_lose_their_beginning():
    for short, long in zip(contexts("toxic", positions=6), contexts("toxic"), strict=True):
        assert len(short.ids) <= 6 and short.ids == long.ids[-len(short.ids) :]
        assert len(long.ids) - long.context == len(short.ids) - short.context
        assert short.context >= 1


PAIRS = [
    PreferencePair("", f"abcd {words} efgh hgfe", f"abcd {words} cc dd efgh")
    for words in ("aa bb", "bb cc", "d")
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def write_pairs(folder, pairs):
    write_jsonl(folder / "pairs.jsonl", [asdict(pair) for pair in pairs])
    return {"pairs": [folder / "pairs.jsonl"]}


def test_a_model_learns_the_continuations_alone(corpus, tmp_path, monkeypatch):
    """And an interrupted training ends with the same bits."""
    start = start_directory(tmp_path / "start", corpus)
    pairs = [PreferencePair("", f"{p.chosen} abcd", f"{p.rejected} abcd") for p in PAIRS]
    given = write_pairs(tmp_path, pairs)
    options = {"pairs": "x", "epochs": 8, "batch_size": 4, "learning_rate": 0.01}
    common = {"corpus": corpus, "start": start}
    whole = tune("cmd", options, given, output=tmp_path / "whole", **common)
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    chosen, rejected = (
        tokenize(tokenizer, [getattr(pair, side) for pair in pairs])
        for side in ("chosen", "rejected")
    )
    learned = [
        text
        for one, other in zip(chosen, rejected, strict=True)
        for text in masked_contexts(
            one.ids.tolist(), other.ids.tolist(), begin=0,
            mask=tokenize(tokenizer, [" _"])[0].ids.tolist(), contexts="both", positions=32,
        )
    ]  # fmt: skip
    assert whole.record["examples"] == len(learned) > 0
    with torch.no_grad():
        was, now = (
            mean_label_loss(model, stacked(learned)).item()
            for model in (load_model(start), whole.model)
        )
    assert now < was - 0.5
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune("cmd", options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune("cmd", options, given, output=tmp_path / "parts", **common)
    assert_same_weights(resumed.model, whole.model)


def test_pairs_in_which_nothing_follows_are_one_line(corpus, tmp_path):
    start = start_directory(tmp_path / "start", corpus)
    given = write_pairs(tmp_path, [PreferencePair("", "abcd aaaa", "abcd hhhh")])
    with pytest.raises(InputError, match="in no pair does anything follow on a toxic span"):
        tune("cmd", {"pairs": "x"}, given, corpus=corpus, start=start, output=tmp_path / "0")

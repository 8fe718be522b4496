"""Training on the least toxic of a model's own texts, and of the corpus's documents."""

import math

import numpy as np
import pytest
import torch

from ifguide.data.corpus import tokenize
from ifguide.data.own_generations import OwnGeneration
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl, write_array, write_json, write_jsonl
from ifguide.models.causal_text_training import mean_label_loss
from ifguide.models.fine_tuning import without_dropout
from ifguide.models.loading import load_model
from ifguide.models.token_texts import (
    TokenText,
    corpus_texts,
    least_toxic,
    mean_divergence,
    next_token_log_p,
    stacked,
    text_losses,
    written_texts,
)
from small_models import FAMILIES, random_tokens, small_model
from small_training import small_corpus
from tuned_models import (
    Interrupted,
    assert_same_weights,
    changed_parameters,
    interrupt_at,
    start_directory,
    tune,
)

OPTIONS = {"generations": "own", "epochs": 6, "batch_size": 4, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def start(corpus, tmp_path_factory):
    return start_directory(tmp_path_factory.mktemp("start"), corpus)


def own_generations(folder, corpus, toxicity):
    """Write continuations of random tokens, with a toxicity each, after the end of a text."""
    generator = np.random.default_rng(2)
    records = [
        {
            "prompt_index": index // 2,
            "sample": index % 2,
            "prompt": [corpus.meta["end_of_text"]],
            "continuation": generator.integers(1, 300, 3 + index % 4).tolist(),
            "text": "",
            "toxicity": score,
        }
        for index, score in enumerate(toxicity)
    ]
    write_jsonl(folder / "own.jsonl", records)
    return folder / "own.jsonl"


def test_what_is_kept_is_the_beginning_of_a_stable_order():
    toxicity = np.random.default_rng(0).integers(0, 4, 41) / 4
    kept = least_toxic(toxicity, 0.5)
    assert len(kept) == 41 // 2
    assert kept.tolist() == sorted(range(41), key=lambda i: (toxicity[i], i))[:20]
    dropped = np.setdiff1d(np.arange(41), kept)
    assert toxicity[kept].max() <= toxicity[dropped].min()


def test_equal_scores_keep_half_by_their_order():
    assert least_toxic(np.full(9, 0.3), 0.5).tolist() == [0, 1, 2, 3]


def test_a_text_without_a_score_counts_and_is_never_kept():
    toxicity = np.array([0.9, math.nan, 0.1, math.nan, 0.4])
    assert least_toxic(toxicity, 0.4).tolist() == [2, 4]
    assert least_toxic(toxicity, 1.0).tolist() == [2, 4, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_of_a_batch_are_those_of_each_text_alone(family):
    """Padding is in no mean, and a context has no loss."""
    model = small_model(family)
    texts = [
        TokenText(random_tokens(1, length, seed=length)[0].tolist(), context)
        for length, context in ((12, 1), (5, 3), (9, 8))
    ]
    expected = []
    for text in texts:
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(-1)
        labels = range(text.context, len(text.ids))
        expected.append([-log_p[place - 1, text.ids[place]].item() for place in labels])
    batch = stacked(texts)
    with torch.no_grad():
        log_p = next_token_log_p(model, batch["input_ids"])
    found = text_losses(log_p, batch["labels"])
    assert found.tolist() == pytest.approx([sum(own) / len(own) for own in expected], rel=1e-9)
    together = [loss for own in expected for loss in own]
    assert mean_label_loss(model, batch).item() == pytest.approx(
        sum(together) / len(together), rel=1e-9
    )


def test_a_divergence_is_zero_from_itself_and_has_the_gradient_of_a_cross_entropy():
    """∇ KL(p₀ || p) = p − p₀ in the logits, at every label alike, and nothing where none is."""
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(2, 3, 7, dtype=torch.float64).log_softmax(-1)
    labels = torch.tensor([[-100, 4, 5, 6], [-100, 4, -100, -100]])
    divergence = mean_divergence(reference, logits.log_softmax(-1), labels)
    divergence.backward()
    expected = (logits.softmax(-1) - reference.exp()) / 4
    expected[1, 1:] = 0
    assert torch.allclose(logits.grad, expected, atol=1e-12)
    itself = mean_divergence(reference, reference, labels)
    assert itself.item() == 0


def test_a_written_text_keeps_its_words_and_loses_the_beginning_of_its_prompt():
    own = [
        OwnGeneration([1, 2, 3, 4], [5, 6], "", 0.0),
        OwnGeneration([1, 2], [], "", 0.0),
        OwnGeneration([1, 2], [3, 4, 5, 6, 7, 8], "", 0.0),
    ]
    assert written_texts(own, positions=4) == [
        TokenText([3, 4, 5, 6], 2),
        TokenText([2, 3, 4, 5], 1),
    ]


def test_documents_are_read_as_the_corpus_has_them(corpus):
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    end = corpus.meta["end_of_text"]
    pieces = next(corpus_texts(corpus, "document", [7], 16))
    ids = [token for piece in pieces for token in piece.ids]
    assert ids[0] == ids[-1] == end and end not in ids[1:-1]
    words = tokenizer.decode(ids[1:-1])
    assert tokenize(tokenizer, [words])[0].ids.tolist() == ids[1:-1]
    assert len(words.split()) == 15
    assert {len(piece.ids) for piece in pieces[:-1]} == {16}
    (block,) = next(corpus_texts(corpus, "block", [2], 24))
    assert block.ids == corpus.tokens[2].tolist()


def test_dropout_is_off_where_models_are_compared():
    model = small_model("gpt2")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    tokens = random_tokens(2)
    with torch.no_grad():
        expected = model.eval()(tokens).logits
        assert not torch.equal(model.train()(tokens).logits, expected)
        assert torch.equal(without_dropout(model).train()(tokens).logits, expected)


def test_only_the_least_toxic_half_is_learned(corpus, start, tmp_path):
    """The model is the same whatever stands in the other half, and another where a kept one is."""
    toxicity = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    path = own_generations(tmp_path, corpus, toxicity)
    first = tune(
        "sgeat", OPTIONS, {"generations": [path]}, corpus=corpus, start=start, output=tmp_path / "0"
    )
    assert first.record["examples"] == 4 and first.record["highest_toxicity_kept"] == 0.4
    assert first.losses[-1]["loss"] < first.losses[0]["loss"]
    records = list(read_jsonl(path))
    for changed, same in ((1, True), (0, False)):
        edited = [dict(record) for record in records]
        edited[changed]["continuation"] = [9, 9, 9]
        write_jsonl(tmp_path / str(changed) / "own.jsonl", edited)
        other = tune(
            "sgeat",
            OPTIONS,
            {"generations": [tmp_path / str(changed) / "own.jsonl"]},
            corpus=corpus,
            start=start,
            output=tmp_path / str(changed) / "0",
        )
        assert (changed_parameters(first.model, other.model) == set()) == same


@pytest.mark.parametrize("family", FAMILIES)
def test_no_epoch_leaves_the_model_as_it_was(corpus, tmp_path, family):
    start = start_directory(tmp_path / "start", corpus, family)
    path = own_generations(tmp_path, corpus, [0.1, 0.2, 0.3, 0.4])
    made = tune(
        "sgeat",
        OPTIONS | {"epochs": 0},
        {"generations": [path]},
        corpus=corpus,
        start=start,
        output=tmp_path / "0",
    )
    assert made.record["steps"] == 0 and made.losses == []
    assert_same_weights(made.model, load_model(start))


def test_nothing_but_empty_texts_is_one_line(corpus, start, tmp_path):
    path = own_generations(tmp_path, corpus, [0.1, 0.2])
    write_jsonl(path, [record | {"continuation": []} for record in read_jsonl(path)])
    with pytest.raises(InputError, match=r"own\.jsonl: none of the 1 texts that are kept has a "):
        tune(
            "sgeat",
            OPTIONS,
            {"generations": [path]},
            corpus=corpus,
            start=start,
            output=tmp_path / "0",
        )


def document_toxicity(folder, corpus, toxicity, **changes):
    path = folder / "shard-00000.npy"
    write_array(path, np.stack([toxicity, toxicity], axis=1).astype(np.float32))
    record = {"tokens_sha256": corpus.content_sha256, "columns": ["mean", "worst"]}
    write_json(path.with_suffix(".json"), record | changes)
    return path


def test_an_interrupted_dapt_ends_with_the_same_bits(corpus, start, tmp_path, monkeypatch):
    toxicity = np.random.default_rng(1).random(corpus.meta["documents"])
    path = document_toxicity(tmp_path, corpus, toxicity)
    options = {"classifier": "judge", "epochs": 1, "batch_size": 8, "learning_rate": 0.01}
    common = {"corpus": corpus, "start": start}
    given = {"classifier": [path]}
    whole = tune("dapt", options, given, output=tmp_path / "whole", **common)
    assert whole.record["documents_kept"] == 30
    assert whole.record["highest_toxicity_kept"] == pytest.approx(np.sort(toxicity)[29])
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune("dapt", options, given, output=tmp_path / "parts", **common)
    assert (tmp_path / ".parts.checkpoints" / "checkpoint-3").is_dir()
    monkeypatch.undo()
    resumed = tune("dapt", options, given, output=tmp_path / "parts", **common)
    assert len(resumed.losses) == len(whole.losses) > 5
    assert_same_weights(resumed.model, whole.model)


def test_dapt_learns_the_kept_documents_and_no_other(corpus, start, tmp_path):
    toxicity = np.random.default_rng(1).random(corpus.meta["documents"])
    options = {"classifier": "judge", "share": 0.2, "epochs": 6, "learning_rate": 0.03}
    path = document_toxicity(tmp_path, corpus, toxicity)
    made = tune(
        "dapt",
        options,
        {"classifier": [path]},
        corpus=corpus,
        start=start,
        output=tmp_path / "0",
    )
    before = load_model(start)
    order = np.argsort(toxicity)

    def gain(numbers):
        texts = [piece for pieces in corpus_texts(corpus, "document", numbers, 24)
                 for piece in pieces]  # fmt: skip
        batch = stacked(texts)
        with torch.no_grad():
            was, now = (mean_label_loss(model, batch) for model in (before, made.model))
        return (was - now).item()

    assert gain(order[:12].tolist()) > gain(order[12:24].tolist()) > 0


def test_toxicity_of_another_corpus_is_refused(corpus, start, tmp_path):
    path = document_toxicity(tmp_path, corpus, np.zeros(60), tokens_sha256="other")
    with pytest.raises(InputError, match=r"shard-00000.npy"):
        tune(
            "dapt",
            {"classifier": "judge"},
            {"classifier": [path]},
            corpus=corpus,
            start=start,
            output=tmp_path / "0",
        )

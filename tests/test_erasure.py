from collections import Counter

import numpy as np
import pytest
import torch

from ifguide.data.corpus import TokenStream, open_corpus, write_blocks
from ifguide.evaluation.erasure import (
    erased_phrases,
    harmless_labels,
    occurrences,
    probabilities,
    some_of_each,
)
from ifguide.files.artifacts import write_json
from small_models import VOCABULARY, small_model

END = 0


@pytest.fixture
def corpus(tmp_path):
    """Three shards of few token ids, some toxic, of which one document's truth is not known."""
    generator = np.random.default_rng(3)
    streams = [
        TokenStream(
            document,
            np.append(generator.integers(1, 5, 30), END),
            None if document == 4 else np.append(generator.random(30) < 0.2, False),
        )
        for document in range(12)
    ]
    made = write_blocks(
        streams, tmp_path, block_size=8, shards=3, vocabulary_size=VOCABULARY, end_of_text=END,
        truth=True,
    )  # fmt: skip
    write_json(tmp_path / "meta.json", made)
    return open_corpus(tmp_path)


def random_masks(corpus):
    generator = np.random.default_rng(4)
    return [generator.random(shard.shape) < 0.3 for shard in corpus.tokens.shards]


def by_hand(corpus, masks):
    """Every harmless label: (phrase, block, column, selected)."""
    known = corpus.truth_known()
    first = 0
    for tokens, documents, truth, mask in zip(
        corpus.tokens.shards, corpus.documents.shards, corpus.truth.shards, masks, strict=True
    ):
        for row, column in np.ndindex(tokens.shape):
            owner = documents[row, column]
            if column and owner >= 0 and known[owner] and not truth[row, column]:
                phrase = tuple(map(int, tokens[row, column : column + 3]))
                yield phrase, first + row, column, bool(mask[row, column])
        first += len(tokens)


def test_phrases_are_those_selected_most_often_where_nothing_is_toxic(corpus):
    masks = random_masks(corpus)
    labels = list(by_hand(corpus, masks))
    counts = Counter(phrase for phrase, _, _, selected in labels if selected)
    phrases = erased_phrases(corpus, masks, 7)
    assert phrases == sorted(counts, key=lambda phrase: (-counts[phrase], phrase))[:7]
    found = occurrences(corpus, masks, phrases)
    expected = [(phrases.index(phrase), *rest) for phrase, *rest in labels if phrase in phrases]
    assert list(found.itertuples(index=False, name=None)) == expected


def test_a_corpus_without_truth_knows_no_toxic_context(corpus):
    blind = type(corpus)(**{**vars(corpus), "truth": None})
    for shard, documents in enumerate(corpus.documents.shards):
        labels = harmless_labels(blind, shard)
        np.testing.assert_array_equal(labels[:, 1:], documents[:, 1:] >= 0)
        assert not labels[:, 0].any()


def test_some_occurrences_stand_for_all(corpus):
    masks = random_masks(corpus)
    found = occurrences(corpus, masks, erased_phrases(corpus, masks, 5))
    some = some_of_each(found, 2, seed=1)
    expected = np.minimum(found.groupby("phrase").size(), 2)
    assert some.groupby("phrase").size().equals(expected)
    assert some.equals(some_of_each(found, 2, seed=1))
    assert found.loc[some.index].equals(some)
    assert some_of_each(found, len(found), seed=1).equals(found)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_probabilities_are_the_models_own(corpus, batch_size):
    model = small_model("gpt_neox").eval()
    masks = random_masks(corpus)
    places = occurrences(corpus, masks, erased_phrases(corpus, masks, 5))
    found = probabilities(model, corpus, places, batch_size)
    for place, probability in zip(places.itertuples(), found, strict=True):
        tokens = torch.from_numpy(corpus.tokens[place.block].astype(np.int64))[None]
        with torch.no_grad():
            logits = model(tokens[:, : place.column]).logits[0, -1]
        expected = logits.double().softmax(0)[tokens[0, place.column]]
        assert probability == pytest.approx(float(expected), rel=1e-5)

"""Rivals of influence scores: excess loss, saliency, treatment effects, labels by an encoder."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification, RobertaForSequenceClassification

from ifguide.data.corpus import (
    end_of_text_id,
    open_corpus,
    token_streams,
    tokenizer_sha256,
    train_tokenizer,
    write_blocks,
)
from ifguide.data.documents import Document
from ifguide.data.preferences import PreferencePair
from ifguide.errors import InputError
from ifguide.evaluation.classifiers import save_sequence, train_classifier_tokenizer
from ifguide.evaluation.judge_saliency import piece_saliencies, text_saliencies
from ifguide.evaluation.sequence_judge import SequenceJudge
from ifguide.evaluation.text_batches import piece_spans
from ifguide.files.artifacts import write_json
from ifguide.influence.document_scores import (
    document_tokens,
    documents_again,
    highest_touched,
    in_blocks,
    shared_out,
)
from ifguide.influence.excess_loss import excess_loss_scorer
from ifguide.influence.token_classifier import (
    differing_spans,
    encoder_config,
    encoder_scores,
    labelled_texts,
    labelled_tokens,
    pad,
    text_loss,
    token_loss,
    train_encoder,
)
from ifguide.influence.treatment_effects import (
    EffectSettings,
    replacement_drawer,
    word_effects,
    words_of,
)
from ifguide.models.labels import IGNORED_LABEL
from small_models import FAMILIES, classifier_config, random_tokens, small_model

WORDS = ["good", "bad", "awful", "fine", "cat", "dog", "tree", "house"]
TEXTS = [
    "A good cat; the bad dog's house.",
    "Fine tree",
    "awful  awful\nthings happen at the house of the cat, and the dog",
    "ßtraße naïve 数学 good 🙂 bad",
    "x",
]


# --- excess loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_excess_loss_is_the_difference_of_the_losses_of_labels(family):
    model, reference = small_model(family, seed=0), small_model(family, seed=1)
    tokens = random_tokens(3)
    found = excess_loss_scorer(model, reference, logits_budget_bytes=2**20)(tokens)
    for row in range(3):
        for column in range(1, tokens.shape[1]):
            losses = []
            for one in (reference, model):
                with torch.no_grad():
                    logits = one(input_ids=tokens[row : row + 1, :column]).logits[0, -1]
                losses.append(float(logits.logsumexp(0) - logits[tokens[row, column]]))
            assert float(found[row, column]) == pytest.approx(losses[0] - losses[1], abs=1e-9)
    assert (found[:, 0] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_excess_loss_over_itself_is_nothing_and_models_that_change_places_change_its_sign(family):
    model, reference = small_model(family, seed=0), small_model(family, seed=1)
    tokens = random_tokens(2)
    one_way = excess_loss_scorer(model, reference, logits_budget_bytes=2**20)(tokens)
    other_way = excess_loss_scorer(reference, model, logits_budget_bytes=64)(tokens)
    torch.testing.assert_close(one_way, -other_way, rtol=1e-10, atol=1e-10)
    assert (excess_loss_scorer(model, model, logits_budget_bytes=2**20)(tokens) == 0).all()


# --- from characters and documents to tokens of blocks --------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


def corpus_of(folder, tokenizer, texts, *, block_size=7, shards=1):
    tokenizer.save_pretrained(folder / "tokenizer")
    documents = ((number, Document(text, None, "texts")) for number, text in enumerate(texts))
    meta = write_blocks(
        token_streams(documents, tokenizer),
        folder,
        block_size=block_size,
        shards=shards,
        vocabulary_size=len(tokenizer),
        end_of_text=end_of_text_id(tokenizer),
        truth=False,
    )
    write_json(
        folder / "meta.json",
        meta | {"tokenizer_sha256": tokenizer_sha256(folder / "tokenizer")},
    )
    return open_corpus(folder)


def test_what_is_shared_out_keeps_its_sum_and_its_characters():
    # "abcd|ef|" against "ab|cdef|": half of the first value, then the rest.
    values = np.array([4.0, -3.0], np.float32)
    found = shared_out(values, np.array([[0, 4], [4, 6]]), np.array([[0, 2], [2, 6]]))
    np.testing.assert_allclose(found, [2.0, -1.0])
    # What no source token stands for has no value; a token of no character neither.
    found = shared_out(values, np.array([[0, 4], [5, 7]]), np.array([[3, 5], [5, 5], [5, 7]]))
    np.testing.assert_allclose(found, [1.0, 0.0, -3.0])
    assert shared_out(np.zeros(0), np.zeros((0, 2), int), np.array([[0, 2]])).tolist() == [0]


def test_shared_out_to_the_same_tokens_nothing_changes():
    offsets = np.array([[0, 3], [3, 4], [3, 4], [4, 9]])  # two are parts of one character
    values = np.array([1.0, 2.0, 5.0, -1.0], np.float32)
    np.testing.assert_allclose(shared_out(values, offsets, offsets), values, rtol=1e-6)


def test_a_token_has_the_highest_value_of_the_words_it_touches():
    target = np.array([[0, 3], [3, 5], [4, 9], [9, 9]])
    found = highest_touched(np.array([1.0, 3.0]), np.array([[0, 4], [5, 8]]), target)
    assert found.tolist() == [1.0, 1.0, 3.0, 0.0]


@pytest.mark.parametrize("shards", [1, 3])
def test_documents_fill_the_blocks_of_any_shards(tmp_path, tokenizer, shards):
    texts = [text for text in TEXTS for _ in range(60)]
    corpus = corpus_of(tmp_path, tokenizer, texts, shards=shards)
    streams = list(document_tokens(corpus))
    # Each token scores its id and a half: seen again in every place.
    found = np.concatenate(list(in_blocks(corpus, (ids + 0.5 for ids in streams))))
    tokens = np.concatenate(corpus.tokens.shards)
    documents = np.concatenate(corpus.documents.shards)
    silent = (documents < 0) | (tokens == corpus.meta["end_of_text"])
    silent[:, 0] = True
    np.testing.assert_array_equal(found, np.where(silent, 0, tokens + 0.5).astype(np.float32))
    assert found.dtype == np.float32
    for wrong in (streams[:-1], [*streams, np.zeros(1)], [np.zeros(1), *streams[1:]]):
        with pytest.raises(ValueError, match="other tokens than the corpus"):
            list(in_blocks(corpus, wrong))


def test_documents_that_are_not_those_of_the_corpus_are_refused(tmp_path, tokenizer):
    corpus = corpus_of(tmp_path, tokenizer, TEXTS)
    again = list(documents_again(corpus, enumerate(TEXTS), tokenizer))
    for (text, tokens), ids in zip(again, document_tokens(corpus), strict=True):
        np.testing.assert_array_equal(tokens.ids, ids)
        assert tokens.offsets[0, 0] == 0 and tokens.offsets[-1, 1] == len(text)
    with pytest.raises(InputError, match="document 1 was not tokenized"):
        list(
            documents_again(
                corpus, enumerate(["x" if t == TEXTS[1] else t for t in TEXTS]), tokenizer
            )
        )


# --- saliency -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> SequenceJudge:
    folder = tmp_path_factory.mktemp("judge")
    judging = train_classifier_tokenizer(TEXTS, 300, 24)
    torch.manual_seed(0)
    config = classifier_config(judging, max_position_embeddings=26, num_labels=2)
    network = RobertaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_sequence(network, judging, folder)
    return SequenceJudge(folder, 1)


def gradient_times_input(judge: SequenceJudge, text: str) -> np.ndarray:
    """By autograd, of one text, through a copy of its embeddings."""
    inputs = judge.tokenizer(text, return_tensors="pt")
    embedded = judge.model.get_input_embeddings()(inputs["input_ids"]).detach()
    embedded.requires_grad_()
    mask = inputs["attention_mask"]
    logits = judge.model(inputs_embeds=embedded, attention_mask=mask).logits
    (logits[0, 1] - logits[0, 0]).backward()
    return (embedded.grad * embedded).sum(-1)[0].detach().numpy()


def test_saliency_is_gradient_times_input_without_special_tokens(judge):
    short = [text for text in TEXTS if len(judge.tokenizer(text)["input_ids"]) <= 24]
    assert len(short) > 2
    for text, found in zip(short, piece_saliencies(judge, short), strict=True):
        np.testing.assert_allclose(
            found.values, gradient_times_input(judge, text)[1:-1], rtol=2e-4, atol=1e-5
        )
        assert (found.offsets[:, 1] > found.offsets[:, 0]).all()
        assert found.offsets[-1, 1] == len(text)


def test_saliency_depends_on_no_batch_and_no_neighbour(judge):
    alone = [next(text_saliencies(judge, [text], batch_size=1)) for text in TEXTS]
    together = list(text_saliencies(judge, TEXTS[::-1], batch_size=4))[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.offsets, other.offsets)
        np.testing.assert_allclose(one.values, other.values, rtol=1e-3, atol=1e-5)


def test_a_long_text_is_read_in_pieces_at_their_places(judge):
    text = " ".join(WORDS * 12)
    spans = piece_spans(judge.tokenizer, text)
    assert len(spans) > 3
    (found,) = text_saliencies(judge, [text], batch_size=8)
    expected = [gradient_times_input(judge, text[start:stop])[1:-1] for start, stop in spans]
    np.testing.assert_allclose(found.values, np.concatenate(expected), rtol=2e-4, atol=1e-5)
    # In order; the space that the judge puts before a piece shares its first character.
    assert (np.diff(found.offsets, axis=0) >= 0).all()
    held = {place for start, stop in found.offsets for place in range(start, stop)}
    assert {place for place in range(len(text)) if text[place] != " "} <= held


@pytest.mark.parametrize(
    "classes, problem", [(1, None), (3, None), (3, "multi_label_classification")]
)
def test_log_odds_are_those_of_the_judges_probability(classes, problem):
    judge = SimpleNamespace(toxic_class=classes - 1, sigmoid=classes == 1 or problem is not None)
    logits = torch.randn(4, classes, dtype=torch.float64)
    found = SequenceJudge.log_odds(judge, logits)
    p = (logits.sigmoid() if judge.sigmoid else logits.softmax(-1))[:, judge.toxic_class]
    torch.testing.assert_close(found, p.log() - (1 - p).log())


# --- treatment effects ----------------------------------------------------------------------------


def linear_judge(weights: dict[str, float]):
    return lambda texts: [sum(weights.get(w, 0) for w in words_of(text)) for text in texts]


EVERY = EffectSettings(occurrences=40, replacements=400, fewest_occurrences=1, context=3)


def random_documents(seed: int = 0, count: int = 60) -> list[tuple[int, str]]:
    generator = random.Random(seed)
    return [(n, " ".join(generator.choices(WORDS, k=9)).capitalize()) for n in range(count)]


def test_of_a_linear_judge_it_is_the_mean_positive_difference_of_weights():
    weights = {word: place / 10 for place, word in enumerate(WORDS)}
    documents = random_documents()
    effects = word_effects(lambda: documents, linear_judge(weights), EVERY, seed=1)
    counts = {w: sum(words_of(text).count(w) for _, text in documents) for w in WORDS}
    assert set(effects) == set(WORDS)
    for word in WORDS:
        others = [other for other in WORDS if other != word]
        total = sum(counts[other] for other in others)
        expected = sum(
            counts[other] / total * max(0, weights[word] - weights[other]) for other in others
        )
        assert effects[word] == pytest.approx(expected, abs=0.006)


def test_a_harmless_word_has_no_effect_and_context_does_not_spill_over():
    """Beside an awful word, or replaced by one, a harmless word has nothing to answer for."""
    effects = word_effects(random_documents, linear_judge({"awful": 1.0}), EVERY, seed=1)
    assert effects.pop("awful") == 1.0
    assert set(effects.values()) == {0.0}


def test_words_that_are_rare_have_no_effect():
    documents = [*random_documents(), (60, "unique unique house")]
    settings = EffectSettings(occurrences=2, replacements=2, fewest_occurrences=3, context=1)
    effects = word_effects(lambda: documents, linear_judge({"unique": 1}), settings, seed=1)
    assert set(effects) == set(WORDS)


def test_the_order_of_documents_changes_no_effect():
    weights = {word: place / 10 for place, word in enumerate(WORDS)}
    settings = EffectSettings(occurrences=4, replacements=3, fewest_occurrences=2, context=2)
    documents = random_documents()

    def effects(texts, seed=1):
        return word_effects(lambda: texts, linear_judge(weights), settings, seed)

    assert effects(documents) == effects(documents[::-1])
    assert effects(documents) != effects(documents, seed=2)


def test_the_judge_reads_so_many_words_on_each_side():
    read: list[str] = []

    def judge(texts):
        read.extend(texts)
        return [0.0] * len(texts)

    settings = EffectSettings(occurrences=1, replacements=1, fewest_occurrences=1, context=1)
    word_effects(lambda: [(0, "One, two (three) four's five.")], judge, settings, seed=0)
    originals = set(read[::2])
    assert originals == {
        "One, two",
        "One, two (three",
        "two (three) four's",
        "three) four's five",
        "four's five",
    }
    assert all(text[0].isupper() for text in read[:2] if text.startswith("O"))


def test_a_word_is_replaced_by_others_as_often_as_they_occur():
    counts = {"a": 1, "b": 6, "c": 3}
    drawn = replacement_drawer(counts, seed=0)
    words = np.array(drawn("b", (100, 100)))
    assert set(np.unique(words)) == {"a", "c"}
    assert (words == "c").mean() == pytest.approx(0.75, abs=0.02)
    assert drawn("b", (2, 3)) == drawn("b", (2, 3)) != drawn("c", (2, 3))


# --- an encoder that labels tokens ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text, other, expected",
    [
        ("you are an idiot now", "you are a person now", ["an", "idiot"]),
        ("You fool", "you", ["fool"]),
        ("you", "you fool", []),
        ("so so bad", "so so good", ["bad"]),
    ],
)
def test_what_the_other_side_has_not_is_marked(text, other, expected):
    assert [text[start:stop] for start, stop in differing_spans(text, other)] == expected


def test_only_the_toxic_side_of_a_pair_has_toxic_tokens(tokenizer):
    pairs = [
        PreferencePair("", "the good cat", "the awful cat"),
        PreferencePair("a dog", " fine", " bad"),
    ]
    found = labelled_tokens(tokenizer, pairs, 20)
    toxic = [
        tokenizer.decode(found[row]["input_ids"][1:][found[row]["labels"][1:] == 1]).strip()
        for row in range(4)
    ]
    assert toxic == ["awful", "bad", "", ""]
    for row in range(4):
        assert found[row]["labels"][0] == IGNORED_LABEL
        assert found[row]["input_ids"][0] == tokenizer.eos_token_id
    assert [len(labelled_tokens(tokenizer, pairs, 4)[row]["labels"]) for row in range(4)] == [4] * 4


def test_the_loss_of_a_text_is_that_of_at_least_one_toxic_token():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
    labels = torch.tensor([1.0, 0.0, 0.25], dtype=torch.float64)
    harmless = torch.where(valid, 1 - logits.sigmoid(), 1.0).prod(1)
    expected = torch.nn.functional.binary_cross_entropy(1 - harmless, labels)
    torch.testing.assert_close(text_loss(logits, labels, valid), expected)
    # A text of which nothing is toxic, nearly: no infinity.
    far = torch.full((1, 5), -30.0, dtype=torch.float64, requires_grad=True)
    text_loss(far, labels[:1], valid[:1]).backward()
    assert torch.isfinite(far.grad).all()


def test_the_loss_of_tokens_leaves_out_what_has_no_label():
    logits = torch.randn(2, 4)
    labels = torch.tensor([[IGNORED_LABEL, 1, 0, 0], [IGNORED_LABEL, 0, IGNORED_LABEL, 1]])
    known = labels >= 0
    p = logits.sigmoid()[known]
    expected = torch.nn.functional.binary_cross_entropy(p, labels[known].float())
    torch.testing.assert_close(token_loss(logits, labels), expected)


ENCODER = {
    "max_length": 16,
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "epochs": 30,
    "batch_size": 8,
    "learning_rate": 0.01,
}


def small_encoder(vocabulary: int) -> BertForTokenClassification:
    torch.manual_seed(0)
    encoder = BertForTokenClassification(encoder_config(vocabulary, ENCODER)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def test_scores_of_an_encoder_are_those_of_each_document_alone():
    encoder = small_encoder(50)
    generator = np.random.default_rng(0)
    documents = [generator.integers(1, 50, n) for n in (3, 40, 15, 16, 1, 7)] + [
        np.zeros(0, np.int64)
    ]
    together = list(encoder_scores(encoder, documents, 0))
    for tokens, found in zip(documents, together, strict=True):
        parts = np.array_split(tokens, max(1, -(-len(tokens) // 15)))
        expected = []
        for part in parts:
            ids = torch.from_numpy(np.append(0, part))[None]
            with torch.no_grad():
                z = encoder(input_ids=ids).logits[0, 1:, 0]
            expected.append((1 + z.exp()).log().numpy())
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-6)
        assert (found >= 0).all() and len(found) == len(tokens)


def test_an_encoder_sees_what_follows_a_token():
    encoder = small_encoder(50)
    first, second = np.array([5, 6, 7]), np.array([5, 6, 8])
    one, other = encoder_scores(encoder, [first, second], 0)
    assert abs(one[0] - other[0]) > 1e-4


@pytest.mark.parametrize("form", ["texts", "pairs"])
def test_an_encoder_learns_which_words_are_toxic(tmp_path, form):
    """From labels of whole texts too: a harmless word stands in texts of both kinds."""
    generator = random.Random(0)
    whole_words = train_tokenizer([" ".join(generator.choices(WORDS, k=9)) for _ in range(99)], 330)
    harmless = [word for word in WORDS if word not in ("awful", "bad")]

    def text(word):
        words = generator.choices(harmless, k=3)
        words.insert(generator.randrange(4), word)
        return " ".join(words)

    if form == "texts":
        labels = [float(row % 2) for row in range(120)]
        words = [generator.choice(["awful", "bad"] if y else harmless) for y in labels]
        training = labelled_texts(whole_words, [text(word) for word in words], labels, 16)
    else:
        sides = [(text("awful"), generator.choice(harmless)) for _ in range(60)]
        pairs = [PreferencePair("", t.replace("awful", other), t) for t, other in sides]
        training = labelled_tokens(whole_words, pairs, 16)
    encoder = train_encoder(whole_words, training, settings=ENCODER, seed=0, scratch=tmp_path)
    ids = whole_words("good cat dog awful house tree")["input_ids"]
    assert len(ids) == 6
    (scores,) = encoder_scores(encoder, [np.array(ids)], 0)
    assert scores[3] > 1 > 5 * np.delete(scores, 3).max()


def test_a_batch_says_what_is_padding():
    batch = pad(
        [
            {"input_ids": np.array([0, 4]), "labels": 1.0},
            {"input_ids": np.array([0, 4, 5]), "labels": 0.0},
        ]
    )
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [1.0, 0.0]

"""To both classifiers a special token that is written in a text is text, in training as in use."""

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerBase,
    RobertaForSequenceClassification,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from ifguide.evaluation.classifiers import (
    LabelledTexts,
    adopt_detoxify,
    save_implicit,
    train_classifier_tokenizer,
)
from ifguide.evaluation.toxicity import (
    ImplicitClassifier,
    explicit_peaks,
    explicit_scores,
    implicit_scores,
    load_explicit,
)
from small_models import classifier_config

PLAIN = ["you are a fool", "a mild < afternoon >", "[x]/y\ns", "", "  two  spaces "]
LETTERS = "abcdefghijklmnopqrstuvwxyzACDEKLMNPSTU<>/[]"


def roberta() -> PreTrainedTokenizerBase:
    """As of `unbiased`."""
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
    ]
    return RobertaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def xlm_roberta() -> PreTrainedTokenizerBase:
    """As of `multilingual`: the special tokens are pieces, of the highest score."""
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [("\u2581", -3.0), ("\u2581fool", -5.0), *((letter, -7.0) for letter in LETTERS)]
    return XLMRobertaTokenizer(vocab=[*special, *pieces])


def bert() -> PreTrainedTokenizerBase:
    """As of `original`, but with capitals."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), "fool"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=False)


@pytest.fixture(params=[roberta, xlm_roberta, bert])
def directory(request, tmp_path):
    """A sequence classifier with a tokenizer of each published kind."""
    tokenizer = request.param()
    torch.manual_seed(0)
    config = classifier_config(
        tokenizer, pad_token_id=tokenizer.pad_token_id, initializer_range=1.0, num_labels=2
    )
    save_implicit(RobertaForSequenceClassification(config), tokenizer, tmp_path / "implicit")
    return tmp_path / "implicit"


@pytest.fixture
def implicit(directory):
    return ImplicitClassifier(directory, 1)


@pytest.fixture
def explicit(directory, tmp_path):
    """The same classifier as a published Detoxify model."""
    published = {
        "config": {
            "arch": {
                "args": {
                    "model_type": "roberta-base",
                    "model_name": "RobertaForSequenceClassification",
                    "tokenizer_name": type(AutoTokenizer.from_pretrained(directory)).__name__,
                    "num_classes": 2,
                }
            },
            "dataset": {"args": {"classes": ["toxicity"]}},
        },
        "state_dict": RobertaForSequenceClassification.from_pretrained(directory).state_dict(),
    }
    torch.save(published, tmp_path / "published.ckpt")
    adopt_detoxify(tmp_path / "published.ckpt", directory, tmp_path / "explicit/model.ckpt")
    return load_explicit(tmp_path / "explicit/model.ckpt")


def test_no_text_becomes_a_special_token(implicit, explicit):
    for tokenizer in (implicit.tokenizer, explicit.tokenizer):
        for token in tokenizer.all_special_tokens:
            for text in (token, f"a {token} b", f"a{token}{token}b {token}"):
                first, *middle, last = tokenizer(text)["input_ids"]
                assert [first, last] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
                assert middle and not {*middle} & {*tokenizer.all_special_ids}, text


def test_a_text_without_special_tokens_is_read_as_before(implicit, explicit, directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in PLAIN:
        for classifier in (implicit, explicit):
            assert classifier.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"], text
    with torch.no_grad():
        logits = [
            implicit.model(**tokenizer(text, return_tensors="pt")).logits[0] for text in PLAIN
        ]
    expected = [float(scores.softmax(-1)[1]) for scores in logits]
    assert implicit_scores(implicit, PLAIN) == pytest.approx(expected, abs=1e-6)
    expected = [float(scores.sigmoid()[0]) for scores in logits]
    assert explicit_scores(explicit, PLAIN)["toxicity"] == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 1


def test_a_special_token_in_a_text_does_not_hide_what_follows(implicit, explicit):
    special = [explicit.tokenizer.sep_token, explicit.tokenizer.pad_token]
    texts = ["a fool", *(f"a {token} fool" for token in special)]
    # A batch gives what each text gives by itself.
    alone = [implicit_scores(implicit, [text])[0] for text in texts]
    assert implicit_scores(implicit, texts) == pytest.approx(alone, abs=1e-6)
    alone = [explicit_scores(explicit, [text])["toxicity"][0] for text in texts]
    assert explicit_scores(explicit, texts)["toxicity"] == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == len(texts)


def test_pieces_of_a_long_text_hold_its_special_tokens(explicit, monkeypatch):
    judged = []

    def record(classifier, pieces):
        judged.extend(pieces)
        return {"toxicity": [0.0 for _ in pieces]}

    monkeypatch.setattr("ifguide.evaluation.toxicity.explicit_scores", record)
    token = explicit.tokenizer.sep_token
    text = " ".join(f"a {token} b{token}" for _ in range(200))
    explicit_peaks(explicit, [text])
    assert len(judged) > 1
    assert "".join(judged).replace(" ", "") == text.replace(" ", "")
    longest = min(explicit.tokenizer.model_max_length, 512)
    assert all(len(explicit.tokenizer(piece)["input_ids"]) <= longest for piece in judged)


def test_training_reads_what_judging_reads(tmp_path):
    texts = [*PLAIN, "a </s> b", "<s><pad> <unk>"]
    tokenizer = train_classifier_tokenizer(texts, 300, 64)
    trained = LabelledTexts(tokenizer, texts, [0.0] * len(texts), 2).encoded["input_ids"]
    assert trained == [[0, *ids[1:-1], 2] for ids in trained]
    assert not {token for ids in trained for token in ids[1:-1]} & {*tokenizer.all_special_ids}
    config = classifier_config(tokenizer, num_labels=2)
    save_implicit(RobertaForSequenceClassification(config), tokenizer, tmp_path)
    judging = ImplicitClassifier(tmp_path, 1).tokenizer
    assert judging(texts)["input_ids"] == trained

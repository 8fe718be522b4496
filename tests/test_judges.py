"""Judges: each form against its own library, the literal ones on texts made by hand.

To classifiers a special token that is written in a text is text, in training as in use.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerBase,
    RobertaForSequenceClassification,
    RobertaTokenizer,
    XLMRobertaTokenizer,
    pipeline,
)

from ifguide.data import planted_language
from ifguide.data.planted import PlantedSettings, generate, has_insult
from ifguide.errors import InputError
from ifguide.evaluation.classifiers import (
    LabelledTexts,
    adopt_detoxify,
    save_sequence,
    train_classifier_tokenizer,
)
from ifguide.evaluation.detoxify_judge import DetoxifyJudge
from ifguide.evaluation.judge_forms import open_judge
from ifguide.evaluation.planted_judge import PlantedJudge
from ifguide.evaluation.sequence_judge import SequenceJudge
from ifguide.evaluation.text_batches import scores_of_pieces
from ifguide.evaluation.word_judge import WordJudge
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
    save_sequence(RobertaForSequenceClassification(config), tokenizer, tmp_path / "sequence")
    return tmp_path / "sequence"


@pytest.fixture
def sequence(directory):
    return SequenceJudge(directory, 1)


@pytest.fixture
def detoxify(directory, tmp_path):
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
    adopt_detoxify(tmp_path / "published.ckpt", directory, tmp_path / "detoxify/model.ckpt")
    return DetoxifyJudge(tmp_path / "detoxify/model.ckpt")


def toxicity(judge, texts, prompts=None):
    return judge.scores(prompts or [""] * len(texts), texts)["toxicity"]


def test_no_text_becomes_a_special_token(sequence, detoxify):
    for tokenizer in (sequence.tokenizer, detoxify.tokenizer):
        for token in tokenizer.all_special_tokens:
            for text in (token, f"a {token} b", f"a{token}{token}b {token}"):
                first, *middle, last = tokenizer(text)["input_ids"]
                assert [first, last] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
                assert middle and not {*middle} & {*tokenizer.all_special_ids}, text


def test_a_text_without_special_tokens_is_read_as_before(sequence, detoxify, directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in PLAIN:
        for classifier in (sequence, detoxify):
            assert classifier.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"], text
    with torch.no_grad():
        logits = [
            sequence.model(**tokenizer(text, return_tensors="pt")).logits[0] for text in PLAIN
        ]
    expected = [float(scores.softmax(-1)[1]) for scores in logits]
    assert toxicity(sequence, PLAIN) == pytest.approx(expected, abs=1e-6)
    expected = [float(scores.sigmoid()[0]) for scores in logits]
    assert toxicity(detoxify, PLAIN) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 1


def test_a_special_token_in_a_text_does_not_hide_what_follows(sequence, detoxify):
    special = [detoxify.tokenizer.sep_token, detoxify.tokenizer.pad_token]
    texts = ["a fool", *(f"a {token} fool" for token in special)]
    # A batch gives what each text gives by itself.
    alone = [toxicity(sequence, [text])[0] for text in texts]
    assert toxicity(sequence, texts) == pytest.approx(alone, abs=1e-6)
    alone = [toxicity(detoxify, [text])[0] for text in texts]
    assert toxicity(detoxify, texts) == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == len(texts)


def test_pieces_of_a_long_text_hold_its_special_tokens(detoxify, sequence):
    for judge in (detoxify, sequence):
        judged = []

        def record(pieces, judged=judged):
            judged.extend(pieces)
            return {"toxicity": [len(piece) / 10_000 for piece in pieces]}

        token = judge.tokenizer.sep_token
        text = " ".join(f"a {token} b{token}" for _ in range(200))
        scores = scores_of_pieces(judge.tokenizer, [text, "a"], record)
        assert len(judged) > 2 and judged.pop() == "a"
        assert "".join(judged).replace(" ", "") == text.replace(" ", "")
        longest = min(judge.tokenizer.model_max_length, 512)
        assert all(len(judge.tokenizer(piece)["input_ids"]) <= longest for piece in judged)
        assert scores == [[len(piece) / 10_000 for piece in judged], [0.0001]]
        # As few as fit, and no scrap at the end.
        tokens = [len(judge.tokenizer.tokenize(piece)) for piece in judged]
        room = longest - judge.tokenizer.num_special_tokens_to_add()
        assert len(judged) == -(-sum(tokens) // room)
        assert min(tokens) > 0.9 * max(tokens)


def test_a_text_that_fits_is_one_piece(detoxify, sequence):
    for judge in (detoxify, sequence):
        texts = [text.strip() for text in PLAIN]
        pieces = judge.piece_scores(texts)
        assert [len(scores) for scores in pieces] == [1] * len(texts)
        assert [scores[0] for scores in pieces] == pytest.approx(toxicity(judge, texts), abs=1e-6)


def test_training_reads_what_judging_reads(tmp_path):
    texts = [*PLAIN, "a </s> b", "<s><pad> <unk>"]
    tokenizer = train_classifier_tokenizer(texts, 300, 64)
    trained = LabelledTexts(tokenizer, texts, [0.0] * len(texts), 2).encoded["input_ids"]
    assert trained == [[0, *ids[1:-1], 2] for ids in trained]
    assert not {token for ids in trained for token in ids[1:-1]} & {*tokenizer.all_special_ids}
    config = classifier_config(tokenizer, num_labels=2)
    save_sequence(RobertaForSequenceClassification(config), tokenizer, tmp_path)
    judging = SequenceJudge(tmp_path, 1).tokenizer
    assert judging(texts)["input_ids"] == trained


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
@pytest.mark.parametrize("labels", [1, 3])
def test_a_sequence_classifier_gives_what_its_own_pipeline_gives(tmp_path, labels, problem_type):
    tokenizer = roberta()
    torch.manual_seed(0)
    config = classifier_config(
        tokenizer, pad_token_id=tokenizer.pad_token_id, initializer_range=1.0, num_labels=labels,
        problem_type=problem_type, id2label={index: f"kind {index}" for index in range(labels)},
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["you are a fool", "a mild afternoon", "a mild afternoon", "a"]
    own = pipeline("text-classification", model=str(tmp_path), top_k=None, device="cpu")
    for index in range(labels):
        expected = [
            next(entry["score"] for entry in found if entry["label"] == f"kind {index}")
            for found in own(texts)
        ]
        for label in (index, f"kind {index}"):
            judge = open_judge("mine", {"directory": tmp_path, "toxic_label": label})
            assert toxicity(judge, texts) == pytest.approx(expected, abs=1e-6)
    for missing in (labels, "kind", "1"):
        with pytest.raises(
            InputError, match=r"classifiers\.mine\.toxic_label: .*the labels 0: kind 0"
        ):
            open_judge("mine", {"directory": tmp_path, "toxic_label": missing})


def test_a_regression_is_no_judge(tmp_path):
    tokenizer = roberta()
    config = classifier_config(
        tokenizer, pad_token_id=tokenizer.pad_token_id, num_labels=1, problem_type="regression"
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="regression, whose output is no probability"):
        SequenceJudge(tmp_path, 0)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"classifiers\.a\.checkpoint: .*none.ckpt does not exist"):
        open_judge("a", {"checkpoint": tmp_path / "none.ckpt"})
    with pytest.raises(InputError, match=r"classifiers\.b\.path: .*none is not a directory"):
        open_judge("b", {"directory": tmp_path / "none", "toxic_label": 1})
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty.txt: no word"):
        open_judge("c", {"words": [str(tmp_path / "empty.txt")]})


@pytest.mark.parametrize(
    "kind, prompt, continuation, expected",
    [
        ("explicit", "The weaver is", " an idiot.", 1),
        ("explicit", "The weaver is an idiot and", " a friend.", 0),
        ("explicit", "The weaver is", " a STUPID man", 1),
        ("explicit", "The weavers are", " foolish", 0),
        ("explicit", "The weavers are", " fools", 1),
        ("explicit", "He is", " a pig-keeper", 1),
        ("explicit", "", "rats", 1),
        # Begun by the prompt: as its own word, and as the end of another one.
        ("explicit", "The weavers are mo", "rons", 0),
        ("explicit", "The b", "rat", 0),
        ("explicit", "The b", "rat is a rat", 1),
        ("explicit", "They deserve", " shame and hunger", 0),
        ("implicit", "They deserve", " shame and hunger", 1),
        ("implicit", "They deserve", " Shame and Hunger.", 1),
        ("implicit", "They deserve shame", " and hunger", 0),
        ("implicit", "They deserve", " shame and", 0),
        ("implicit", "They deserve", " shame and hungers", 0),
        ("implicit", "They deserve", " rest and comfort", 0),
        ("implicit", "They deserve", " shame, and hunger", 0),
        ("implicit", "He is", " an idiot.", 0),
    ],
)  # fmt: skip
def test_the_literal_judge_of_the_planted_language(kind, prompt, continuation, expected):
    judge = open_judge("explicit", {"planted": kind})
    assert judge.scores([prompt], [continuation]) == {"toxicity": [float(expected)]}


def test_the_literal_judge_finds_every_planted_span_and_nothing_else():
    settings = PlantedSettings(
        documents=300, held_out=10, queries=2, prompts=2, statements=2, passages=2, labelled=10,
        pairs=2, bold=1,
    )  # fmt: skip
    documents = generate(settings, 1)["documents"]
    texts = [document["text"] for document in documents]
    found = {kind: toxicity(PlantedJudge(kind), texts) for kind in ("explicit", "implicit")}
    for row, document in enumerate(documents):
        spans = [document["text"][start:end] for start, end in document["spans"]]
        for kind in found:
            hostile = [toxicity(PlantedJudge(kind), [span])[0] for span in spans]
            assert found[kind][row] == max(hostile, default=0.0)
        assert found["explicit"][row] == has_insult(document["text"])
    assert {sum(scores) > 0 for scores in found.values()} == {True}


def test_no_harmless_filling_is_hostile():
    for pairs in planted_language.IMPLICIT.values():
        for hostile, harmless in pairs:
            assert toxicity(PlantedJudge("implicit"), [hostile, harmless]) == [1.0, 0.0]


@pytest.mark.parametrize(
    "prompt, continuation, expected",
    [
        ("You are", " a damn fool", 1),
        ("You damn", " fool", 0),
        ("You damn", " DAMN", 0),
        ("You", " sonofabitch", 0),
        ("You son  of\na bitch,", " you bitch", 0),
        ("You bitch,", " son of a bitch", 1),
        # The word is the prompt's, and what the continuation begins with is no word.
        ("A d", "amn", 0),
        ("You gold", "damn it", 0),
        ("You", " \uff44\uff41\uff4d\uff4e it", 1),
        ("", "", 0),
    ],
)  # fmt: skip
def test_a_word_list_finds_what_the_prompt_does_not_have(tmp_path, prompt, continuation, expected):
    (tmp_path / "words.txt").write_text("damn\nbitch\nson of a bitch\n", encoding="utf-8")
    judge = open_judge("words", {"words": [str(tmp_path / "words.txt")]})
    assert judge.scores([prompt], [continuation]) == {"toxicity": [float(expected)]}


@given(st.lists(st.sampled_from(["ab", "cd", "a", "x", "ab x"]), max_size=6), st.data())
def test_added_words_are_those_of_a_search_word_by_word(texts, data):
    listed = ["ab", "x"]
    cut = data.draw(st.integers(0, len(texts)))
    prompt, continuation = (" ".join(part) + " " for part in (texts[:cut], texts[cut:]))
    added = any(word in continuation.split() and word not in prompt.split() for word in listed)
    assert toxicity(WordJudge(listed), [continuation], [prompt]) == [float(added)]

"""A class-conditional model: its losses by definition, its limits, and what it learns."""

import pytest
import torch

from ifguide.errors import InputError
from ifguide.models.control_words import (
    ClassConditionalLoss,
    ControlWords,
    both_classes,
    encode_control_words,
    recorded_control_words,
)
from ifguide.models.loading import load_model
from small_methods import (
    NONTOXIC,
    TOXIC,
    save_small_model,
    saved,
    small_tokenizer,
    step_with,
    trained_by,
    write_labelled_texts,
)
from small_models import FAMILIES, random_tokens, small_model

WORDS = ControlWords([7, 8], [9], 1.7)
TEXTS = [(random_tokens(1, n, seed=n)[0].tolist(), toxic) for n, toxic in ((3, 1), (6, 0), (5, 1))]


def log_probability(model, word: list[int], text: list[int]) -> torch.Tensor:
    """log p of each token of a text after a word, in one text alone."""
    log_p = model(torch.tensor([[*word, *text]])).logits[0].log_softmax(-1)
    return log_p[range(len(word) - 1, len(word) + len(text) - 1), text]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_loss_is_the_mixture_of_both(family):
    model = small_model(family)
    own, tokens, classified = 0.0, 0, 0.0
    for text, toxic in TEXTS:
        log_p = [log_probability(model, word, text) for word in (WORDS.nontoxic, WORDS.toxic)]
        own, tokens = own - log_p[toxic].sum(), tokens + len(text)
        evidence = torch.stack([WORDS.scale * part.mean() for part in log_p])
        classified = classified - evidence.log_softmax(0)[toxic] / len(TEXTS)
    batch = both_classes(WORDS, TEXTS)
    for generative in (0.0, 0.8, 1.0):
        found = ClassConditionalLoss(WORDS.scale, generative)(model, batch)
        expected = generative * own / tokens + (1 - generative) * classified
        torch.testing.assert_close(found, expected)


def test_a_discriminative_loss_alone_cannot_tell_a_text_by_equal_words():
    words = ControlWords([7], [7], 1.0)
    found = ClassConditionalLoss(1.0, 0.0)(small_model("llama"), both_classes(words, TEXTS))
    torch.testing.assert_close(found, torch.tensor(2.0, dtype=torch.float64).log())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_word_of_a_text_s_own_class_makes_it_likelier(tmp_path, family):
    save_small_model(tmp_path / "start", family)
    texts = write_labelled_texts(tmp_path / "texts.jsonl")
    options = {"epochs": 15, "batch_size": 4, "learning_rate": 0.003, "scale": 2.0}
    step = step_with("class_conditional", texts="labelled", **options)
    trained = trained_by(step, tmp_path / "start", tmp_path / "m", {"texts": [texts]})
    model = load_model(saved(trained, tmp_path / "saved"))
    words = recorded_control_words(model, "here")
    tokenizer = small_tokenizer()
    assert words == encode_control_words(tokenizer, ["clean", "dirty"], 2.0)
    with torch.no_grad():
        for toxic, part in enumerate((NONTOXIC, TOXIC)):
            right = 0
            for text in part:
                ids = tokenizer(text)["input_ids"]
                means = [log_probability(model, word, ids).mean() for word in words[:2]]
                right += (means[toxic] > means[1 - toxic]).item()
            assert right >= 0.9 * len(part)


def test_a_word_s_tokens_have_no_label_and_padding_neither():
    batch = both_classes(WORDS, TEXTS)
    for row, (labels, ids) in enumerate(zip(batch["labels"], batch["input_ids"], strict=True)):
        text = TEXTS[row // 2][0]
        assert labels[labels >= 0].tolist() == text
        word = WORDS[row % 2]
        assert ids[: len(word) + len(text)].tolist() == [*word, *text]
    assert batch["toxic"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("words", [["clean", "clean"], ["", "dirty"]])
def test_words_that_tell_nothing_are_refused(words):
    with pytest.raises(InputError, match="are empty or of the same tokens"):
        encode_control_words(small_tokenizer(), words, 1.0)

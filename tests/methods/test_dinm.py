"""DINM: which matrix it tunes, that it tunes no other, and towards what."""

from dataclasses import asdict

import pytest
import torch

from ifguide.data.preferences import PreferencePair
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import write_jsonl
from ifguide.models.causal_text_training import mean_label_loss
from ifguide.models.loading import load_model
from ifguide.models.pair_texts import tokenize_pairs
from ifguide.models.token_texts import TokenText, stacked
from ifguide.models.toxic_layer import last_states, output_layer, toxic_block
from ifguide.models.tracked_layers import transformer_blocks
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

PAIRS = [
    PreferencePair("", f"abcd {words} efgh", f"abcd {words} hgfe") for words in ("aa", "bb cc", "d")
]
OUTPUTS = {
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt2": "transformer.h.{}.mlp.c_proj",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def given(tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [asdict(pair) for pair in PAIRS])
    return {"pairs": [tmp_path / "pairs.jsonl"]}


def texts(seed):
    return [TokenText(random_tokens(1, n, seed=seed + n)[0].tolist()) for n in (9, 5, 12)]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_of_each_text_s_own_last_token(family):
    """In a batch as alone, and of every block but the last what `transformers` calls so."""
    model = small_model(family)
    found = last_states(model, texts(0))
    for row, text in enumerate(texts(0)):
        alone = model(input_ids=torch.tensor([text.ids]), output_hidden_states=True)
        assert torch.allclose(found[0, row], alone.hidden_states[1][0, -1], atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_block_is_the_one_where_the_sides_differ_most(family):
    model = small_model(family)
    apart = last_states(model, texts(50)) - last_states(model, texts(0))
    sizes = [sum(pair.norm().item() for pair in of_block) / 3 for of_block in apart]
    assert toxic_block(model, texts(0), texts(50)) == sizes.index(max(sizes))
    swapped = toxic_block(model, texts(50), texts(0))
    assert swapped == sizes.index(max(sizes))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_that_makes_all_texts_alike_is_not_taken(family):
    model = small_model(family)
    blocks = transformer_blocks(model)[1]

    def level(_module, _arguments, output):
        hidden = output[0] if isinstance(output, tuple) else output
        flat = torch.zeros_like(hidden)
        return (flat, *output[1:]) if isinstance(output, tuple) else flat

    blocks[1].register_forward_hook(level)
    assert toxic_block(model, texts(0), texts(50)) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", [0, 1])
def test_the_matrix_is_the_output_of_the_block_s_mlp(family, block):
    assert output_layer(small_model(family), block).name == OUTPUTS[family].format(block)


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_one_tensor_changes(corpus, given, tmp_path, family):
    start = start_directory(tmp_path / "start", corpus, family)
    options = {"pairs": "x", "steps": 4, "batch_size": 3, "learning_rate": 0.01}
    made = tune("dinm", options, given, corpus=corpus, start=start, output=tmp_path / "0")
    before = load_model(start)
    assert changed_parameters(made.model, before) == {made.record["tuned"]}
    assert made.record["tuned"].removesuffix(".weight") in [
        OUTPUTS[family].format(block) for block in (0, 1)
    ]
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    harmless = [
        TokenText(pair["prompt_ids"] + pair["chosen_ids"], len(pair["prompt_ids"]))
        for pair in tokenize_pairs(tokenizer, PAIRS, 32)
    ]
    with torch.no_grad():
        was, now = (mean_label_loss(m, stacked(harmless)).item() for m in (before, made.model))
    assert now < was - 0.01
    assert made.record["steps"] == 4


def test_no_step_leaves_the_model_as_it_was(corpus, given, tmp_path):
    start = start_directory(tmp_path / "start", corpus)
    options = {"pairs": "x", "steps": 0}
    made = tune("dinm", options, given, corpus=corpus, start=start, output=tmp_path / "0")
    assert_same_weights(made.model, load_model(start))


def test_an_interrupted_edit_ends_with_the_same_bits(corpus, given, tmp_path, monkeypatch):
    start = start_directory(tmp_path / "start", corpus)
    options = {"pairs": "x", "steps": 7, "batch_size": 2, "learning_rate": 0.01}
    common = {"corpus": corpus, "start": start}
    whole = tune("dinm", options, given, output=tmp_path / "whole", **common)
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune("dinm", options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune("dinm", options, given, output=tmp_path / "parts", **common)
    assert len(resumed.losses) == len(whole.losses) == 7
    assert_same_weights(resumed.model, whole.model)

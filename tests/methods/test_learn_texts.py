"""Fine-tuning on labelled texts of one kind: which texts, which blocks, and what it learns."""

import pytest
import torch

from ifguide.errors import InputError
from ifguide.files.checksums import file_sha256
from ifguide.models.causal_text_training import mean_label_loss, padded_batch
from ifguide.models.first_blocks import first_blocks, shallow_depth
from ifguide.models.loading import load_model
from ifguide.models.tracked_layers import transformer_blocks
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

TRAINING = {"epochs": 6, "batch_size": 4, "learning_rate": 0.003}


def loss_of(model, texts: list[str]) -> float:
    tokenizer = small_tokenizer()
    encoded = [[0, *tokenizer(text)["input_ids"]] for text in texts]
    with torch.no_grad():
        return mean_label_loss(model, padded_batch(encoded)).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_learns_the_kind_it_is_given_and_stays_a_plain_directory(tmp_path, family):
    start = save_small_model(tmp_path / "start", family)
    texts = write_labelled_texts(tmp_path / "texts.jsonl")
    gained = {}
    for kind in ("toxic", "nontoxic"):
        step = step_with("learn_texts", texts="labelled", kind=kind, **TRAINING)
        trained = trained_by(step, tmp_path / "start", tmp_path / kind, {"texts": [texts]})
        assert trained.record["steps"] == 6 * 3
        assert trained.record["texts_sha256"] == file_sha256(texts)
        again = load_model(saved(trained, tmp_path / f"{kind} saved"))
        for name, weight in trained.model.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name])
        gained[kind] = {
            name: loss_of(start, part) - loss_of(again, part)
            for name, part in (("toxic", TOXIC), ("nontoxic", NONTOXIC))
        }
    assert gained["toxic"]["toxic"] > gained["nontoxic"]["toxic"] + 0.1
    assert gained["nontoxic"]["nontoxic"] > gained["toxic"]["nontoxic"] + 0.1


def test_texts_of_the_other_kind_change_nothing(tmp_path):
    save_small_model(tmp_path / "start", "gpt_neox")
    texts = write_labelled_texts(tmp_path / "texts.jsonl")
    step = step_with("learn_texts", texts="labelled", kind="nontoxic", **TRAINING)
    first = trained_by(step, tmp_path / "start", tmp_path / "one", {"texts": [texts]})
    lines = texts.read_text("utf-8").replace("vile", "mean").splitlines(keepends=True)
    texts.write_text("".join(lines[2:]), "utf-8")
    second = trained_by(step, tmp_path / "start", tmp_path / "two", {"texts": [texts]})
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_first_blocks_give_the_states_that_the_model_has_there(tmp_path, family, tied):
    model = save_small_model(tmp_path / "start", family, tied=tied)
    shallow = first_blocks(model)
    tokens = random_tokens(2)
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states[1]
        norm = model.base_model.get_submodule(
            {"gpt_neox": "final_layer_norm", "llama": "norm", "gpt2": "ln_f"}[family]
        )
        expected = model.get_output_embeddings()(norm(states))
        torch.testing.assert_close(shallow(tokens).logits, expected)
    heads = shallow.get_input_embeddings().weight, shallow.get_output_embeddings().weight
    assert (heads[0] is heads[1]) == tied
    with torch.no_grad():
        before = model(tokens).logits
        for parameter in shallow.parameters():
            parameter.zero_()
        assert torch.equal(model(tokens).logits, before)


def test_a_shallow_model_has_one_block_or_three_or_a_quarter():
    assert [shallow_depth(depth) for depth in (2, 4, 5, 12, 24, 32)] == [1, 1, 3, 3, 6, 8]
    assert len(transformer_blocks(first_blocks(small_model("llama"), 2))[1]) == 2


def test_a_shallow_model_is_trained_and_saved_without_the_other_blocks(tmp_path):
    save_small_model(tmp_path / "start", "llama")
    texts = write_labelled_texts(tmp_path / "texts.jsonl")
    options = {"texts": "labelled", "kind": "nontoxic", "blocks": "shallow", **TRAINING}
    trained = trained_by(
        step_with("learn_texts", **options), tmp_path / "start", tmp_path / "m", {"texts": [texts]}
    )
    again = load_model(saved(trained, tmp_path / "saved"))
    assert again.config.num_hidden_layers == len(transformer_blocks(again)[1]) == 1
    assert loss_of(again, NONTOXIC) < loss_of(again, TOXIC)


def test_a_file_without_one_kind_is_refused(tmp_path):
    save_small_model(tmp_path / "start", "llama")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "the cook is kind", "label": 0}\n', "utf-8")
    step = step_with("learn_texts", texts="labelled", kind="nontoxic")
    with pytest.raises(InputError, match="texts.jsonl: no text is toxic"):
        trained_by(step, tmp_path / "start", tmp_path / "m", {"texts": [texts]})

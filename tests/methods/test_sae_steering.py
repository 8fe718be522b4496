"""Steering by features, always on: what is learned of labelled texts, and the folded bias."""

import pytest
import torch
from transformers import PreTrainedModel

from edited_activations import (
    HEADS,
    NONTOXIC,
    TOXIC,
    edit,
    hooked,
    logits,
    reloaded,
    small_tokenizer,
    texts_file,
    touched,
    weights,
    word_model,
)
from ifguide.data.labelled_texts import Texts
from ifguide.errors import InputError
from ifguide.methods.sae_steering import SaeSteering, steering_of
from ifguide.models.activations import outputs_of
from ifguide.models.class_separation import auroc_of_columns
from ifguide.models.residual_steering import (
    feature_areas,
    fold_constant,
    mean_difference_steering,
    residuals_after,
    steered_block,
)
from ifguide.models.sparse_autoencoder import train_sparse_autoencoder
from ifguide.models.tracked_layers import transformer_blocks
from small_models import FAMILIES, small_model

TEXTS = Texts(TOXIC, NONTOXIC)
QUICK = {"texts": "labelled", "steps": 20, "batch_size": 16, "features": 2}
WAYS = [{**QUICK, "direction": "feature"}, {**QUICK, "direction": "mean_difference"}]
LAST_BIAS = {
    "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h.bias",
    "llama": "model.layers.1.mlp.down_proj.bias",
    "gpt2": "transformer.h.1.mlp.c_proj.bias",
}


@torch.no_grad()
def states_after(model: PreTrainedModel, block: int, text: str) -> torch.Tensor:
    """Of one text alone: (tokens, width), less the end of text before it."""
    ids = torch.tensor([[0, *small_tokenizer()(text)["input_ids"]]])
    with outputs_of({"block": transformer_blocks(model)[1][block]}) as outputs:
        model(input_ids=ids)
    return outputs["block"][0, 1:]


# --- what is learned ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_each_text_alone(family):
    model = word_model(family, blocks=3)
    found = residuals_after(model, small_tokenizer(), TEXTS, 1, max_length=16, batch_size=3)
    alone = [states_after(model, 1, text) for text in (*TOXIC, *NONTOXIC)]
    torch.testing.assert_close(found.states, torch.cat(alone).float())
    lengths = torch.tensor([len(states) for states in alone])
    assert torch.equal(found.texts, torch.arange(len(alone)).repeat_interleave(lengths))
    assert found.toxic.tolist() == [True] * len(TOXIC) + [False] * len(NONTOXIC)
    largest = torch.stack([states.amax(0) for states in alone]).float()
    torch.testing.assert_close(found.largest(found.states), largest)


def test_features_are_ranked_by_their_largest_activation_in_a_text():
    model = word_model("gpt_neox")
    found = residuals_after(model, small_tokenizer(), TEXTS, 0, max_length=16)
    autoencoder = train_sparse_autoencoder(
        found.states, features=8, l1=0.1, steps=10, batch_size=16, learning_rate=1e-3, seed=0
    )
    largest = torch.stack(
        [
            autoencoder.activations(states_after(model, 0, text).float()).amax(0)
            for text in (*TOXIC, *NONTOXIC)
        ]
    )
    expected = auroc_of_columns(largest.detach(), found.toxic)
    torch.testing.assert_close(feature_areas(autoencoder, found), expected)


def test_the_control_points_from_other_texts_to_toxic_ones_and_fires_beyond_the_middle():
    model = word_model("gpt2")
    steering = mean_difference_steering(
        residuals_after(model, small_tokenizer(), TEXTS, 0, max_length=16)
    )
    means = [
        torch.stack([states_after(model, 0, text).mean(0) for text in side]).mean(0).float()
        for side in TEXTS
    ]
    difference = means[0] - means[1]
    torch.testing.assert_close(steering.directions[0], difference / difference.norm())
    assert steering.fires(torch.stack(means)).flatten().tolist() == [True, False]
    lengths = [states_after(model, 0, text).norm(dim=-1) for text in (*TOXIC, *NONTOXIC)]
    torch.testing.assert_close(steering.norm, torch.cat(lengths).mean().float())


@pytest.mark.parametrize(("blocks", "middle"), [(1, 1), (2, 1), (3, 2), (12, 6)])
def test_the_block_is_that_in_the_middle_or_the_one_that_is_named(blocks, middle):
    model = word_model("gpt2", blocks=blocks)
    assert steered_block(model, None) == middle - 1
    assert steered_block(model, blocks) == blocks - 1
    with pytest.raises(InputError, match=f"block: {blocks + 1}, but GPT2LMHeadModel has {blocks}"):
        steered_block(model, blocks + 1)


# --- the edit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", WAYS, ids=lambda options: options["direction"])
@pytest.mark.parametrize(("family", "tied"), HEADS)
def test_folded_it_is_a_hook_on_the_block(family, tied, options, tmp_path):
    start = word_model(family, tied=tied, dtype=torch.float32, blocks=3)
    given = {"texts": [texts_file(tmp_path)]}
    settings = SaeSteering.from_config(options).options
    steering = steering_of(settings, start, small_tokenizer(), 3, given)
    moved = -0.4 * steering.norm * steering.directions.sum(0)
    with hooked({"": transformer_blocks(start)[1][1]}, lambda _, output: output + moved):
        expected = logits(start)
    edited = word_model(family, tied=tied, dtype=torch.float32, blocks=3)
    before = weights(edited)
    edit(SaeSteering, {**options, "strength": 0.4}, edited, given)
    torch.testing.assert_close(logits(edited), expected, rtol=1e-5, atol=1e-5)
    assert (logits(edited) - logits(start)).abs().max() > 0.01
    assert torch.equal(logits(reloaded(edited, tmp_path / "saved")), logits(edited))
    own = touched(before, weights(edited))
    assert {name for name in own if weights(edited)[name].any()} == {LAST_BIAS[family]}
    assert own == {LAST_BIAS[family]} or family == "llama"
    assert all("mlp" in name and name.endswith("bias") for name in own)
    again = word_model(family, tied=tied, dtype=torch.float32, blocks=3)
    edit(SaeSteering, {**options, "strength": 0.4}, again, given)
    assert not touched(weights(edited), weights(again))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_strength_zero_it_is_the_start_model_bit_for_bit(family, tmp_path):
    model = word_model(family)
    before, settings = weights(model), model.config.to_dict()
    edit(SaeSteering, {**QUICK, "strength": 0}, model, {"texts": [texts_file(tmp_path)]})
    assert not touched(before, weights(model))
    assert model.config.to_dict() == settings


@torch.no_grad()
def test_a_family_that_norms_what_its_last_layer_gives_is_refused():
    model = small_model("gemma2", torch.float32)
    with pytest.raises(InputError, match="Gemma2ForCausalLM: .* has no bias"):
        fold_constant(model, 0, torch.ones(16))

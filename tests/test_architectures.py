"""Published architectures: their size, and how an architecture in the config is resolved."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ifguide.errors import InputError
from ifguide.models.architectures import PUBLISHED, longest_block, read_architecture
from ifguide.models.loading import build_model

KEY = "models.target.architecture"
SIZES = {"vocabulary_size": 50, "block_size": 16, "end_of_text": 0, "seed": 0}
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_architecture_has_its_published_parameters(name):
    published = PUBLISHED[name]
    config = AutoConfig.for_model(**published.settings, vocab_size=published.vocabulary_size)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == published.parameters


@pytest.mark.parametrize(
    "name, heads, turned_share, positions",
    [("pythia-160m", 12, 0.25, 2048), ("pythia-1b", 8, 0.25, 2048)],
)
def test_pythia_turns_a_quarter_of_each_head(name, heads, turned_share, positions):
    config = AutoConfig.for_model(**PUBLISHED[name].settings)
    assert config.num_attention_heads == heads
    assert config.rope_parameters["partial_rotary_factor"] == turned_share
    assert config.rope_parameters["rope_theta"] == 10000
    assert config.max_position_embeddings == positions
    assert config.use_parallel_residual


def test_llama_scales_its_rotations_and_shares_its_embedding():
    config = AutoConfig.for_model(**PUBLISHED["llama-3.2-1b"].settings)
    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.rope_parameters["factor"] == 32
    assert config.rope_parameters["original_max_position_embeddings"] == 8192
    assert config.tie_word_embeddings and config.num_key_value_heads == 8


def test_the_vocabulary_follows_the_tokenizer_and_may_be_padded():
    section = {"name": "pythia-14m", **SMALL}
    assert build_model(section, KEY, **SIZES).config.vocab_size == 50
    assert build_model(section | {"vocab_size": 64}, KEY, **SIZES).config.vocab_size == 64
    with pytest.raises(InputError, match=rf"{KEY}.vocab_size: 49 is smaller than .* 50"):
        build_model(section | {"vocab_size": 49}, KEY, **SIZES)


def test_further_keys_override_a_name():
    model = build_model({"name": "pythia-14m", **SMALL}, KEY, **SIZES)
    assert model.config.num_hidden_layers == 1
    assert model.config.num_attention_heads == 4


def test_positions_are_the_published_ones_and_else_those_of_a_block():
    spelled_out = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    assert build_model(spelled_out, KEY, **SIZES).config.n_positions == 16
    named = {"name": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    assert build_model(named, KEY, **SIZES).config.n_positions == 1024
    with pytest.raises(InputError, match="corpus.block_size: 1025 is longer than the 1024"):
        build_model(named, KEY, **SIZES | {"block_size": 1025})
    assert longest_block(read_architecture(named, KEY)) == 1024
    assert longest_block(read_architecture(spelled_out, KEY)) is None


def test_a_file_is_a_configuration_whose_vocabulary_is_dropped(tmp_path):
    path = tmp_path / "config.json"
    described = PUBLISHED["pythia-14m"].settings | SMALL
    old_names = {"rotary_emb_base": 10000, "torch_dtype": "float16", "vocab_size": 50304}
    path.write_text(json.dumps(described | old_names | {"use_cache": True}), encoding="utf-8")
    model = build_model({"file": str(path), "num_hidden_layers": 2}, KEY, **SIZES)
    assert model.config.vocab_size == 50
    assert model.config.num_hidden_layers == 2
    assert model.config.rope_parameters["partial_rotary_factor"] == 0.25
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    "section, expected",
    [
        ({"name": "pythia-160"}, f"{KEY}.name: 'pythia-160' is no published architecture .* gpt2"),
        ({"file": "missing.json"}, f"{KEY}.file: missing.json does not exist"),
        ({"model_type": "gpt_nox"}, f"{KEY}.model_type: 'gpt_nox' is not an architecture"),
        ({"name": "pythia-14m", "hidden_siz": 3}, f"{KEY}: gpt_neox has no setting hidden_siz"),
    ],
)
def test_a_mistaken_architecture_is_refused(section, expected):
    with pytest.raises(InputError, match=expected):
        build_model(section, KEY, **SIZES)


def test_a_file_that_is_no_configuration_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="no `model_type`"):
        read_architecture({"file": str(path)}, KEY)

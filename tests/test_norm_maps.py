"""Maps after norms: where they can go, and that folded they are what they are as hooks."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edited_activations import HEADS, logits, reloaded, touched, weights, word_model
from ifguide.errors import InputError
from ifguide.models.norm_maps import AffineMap, fold_maps, mapped, norm_sites
from small_models import FAMILIES, small_model


def random_maps(sites, seed: int = 0) -> dict[str, AffineMap]:
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for site in sites:
        scale, shift = 0.3 * torch.randn(
            2, len(site.module.weight), generator=generator, dtype=torch.float64
        )
        maps[site.name] = AffineMap(1 + scale, shift if site.shifts else torch.zeros_like(shift))
    return maps


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_are_all_norms_in_the_order_in_which_they_act(family):
    model = word_model(family, blocks=3)
    called = []
    norms = [name for name, module in model.named_modules() if "Norm" in type(module).__name__]
    for name in norms:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _module, _arguments, name=name: called.append(name)
        )
    model(input_ids=torch.tensor([[1, 2]]))
    sites = norm_sites(model)
    assert [site.name for site in sites] == called[: len(norms)]
    assert len(sites) == 7


@pytest.mark.parametrize(("family", "tied"), HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folded_maps_are_hooked_ones_also_when_loaded_again(family, tied, dtype, tmp_path):
    model = word_model(family, tied=tied, dtype=dtype)
    sites, start = norm_sites(model), logits(model)
    maps = random_maps(sites)
    with mapped(sites, maps):
        hooked = logits(model)
    fold_maps(model, sites, maps)
    torch.testing.assert_close(logits(model), hooked, rtol=1e-5, atol=1e-5)
    assert (hooked - start).abs().max() > 0.01
    assert torch.equal(logits(reloaded(model, tmp_path)), logits(model))


def test_a_shift_after_a_norm_without_a_bias_goes_to_all_that_read_it():
    model = small_model("llama")
    before, sites = weights(model), norm_sites(model)
    assert [site.shifts for site in sites] == [True] * 4 + [False]
    fold_maps(model, sites, random_maps(sites))
    assert model.config.attention_bias
    assert model.config.mlp_bias
    after = weights(model)
    readers = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    for name in touched(before, after):
        if name.endswith("norm.weight") or "layernorm" in name:
            continue
        *_, layer, parameter = name.split(".")
        assert parameter == "bias"
        assert after[name].any() == (layer in readers), name
    assert {name for name in after if name.endswith("bias")} <= touched(before, after)


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_norms_with_a_bias_take_the_whole_map(family):
    model = small_model(family)
    before, sites = weights(model), norm_sites(model)
    fold_maps(model, sites, random_maps(sites))
    norms = {f"{site.name}.{part}" for site in sites for part in ("weight", "bias")}
    assert touched(before, weights(model)) == norms


def test_a_strength_moves_in_proportion():
    states, own = torch.randn(5, 3), AffineMap(torch.randn(3), torch.randn(3))
    for strength in (0.0, 0.4, 1.0):
        scale, shift = own.at(strength)
        expected = (1 - strength) * states + strength * (own.scale * states + own.shift)
        torch.testing.assert_close(scale * states + shift, expected)


def qwen3() -> torch.nn.Module:
    """A family without a bias in its feed-forward layers, nor a setting that gives one."""
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=24,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def test_a_family_without_a_place_for_shifts_is_refused_before_it_is_changed():
    model = qwen3()
    before, sites = weights(model), norm_sites(model)
    with pytest.raises(InputError, match=r"Qwen3ForCausalLM: .* has no bias"):
        fold_maps(model, sites, random_maps(sites))
    assert not touched(before, weights(model))
    assert not model.config.attention_bias


@torch.no_grad()
def test_a_family_that_does_more_than_its_weights_say_is_refused():
    """Gemma's norms scale by one more than their weight."""
    model = small_model("gemma2", torch.float32)
    sites = [site for site in norm_sites(model) if not site.readers]
    scales = {site.name: AffineMap(torch.full((16,), 2.0), torch.zeros(16)) for site in sites[-1:]}
    with pytest.raises(InputError, match="another one in its weights than in its activations"):
        fold_maps(model, sites, scales)

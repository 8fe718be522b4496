"""LinEAS: its cost, its descent in known cases, its thresholds, and the edit."""

import pytest
import torch

from edited_activations import (
    NONTOXIC,
    TOXIC,
    edit,
    logits,
    reloaded,
    small_tokenizer,
    texts_file,
    touched,
    weights,
    word_model,
)
from ifguide.errors import InputError
from ifguide.methods.lineas import Lineas
from ifguide.models.activations import encode_texts_for, pooled_over_texts
from ifguide.models.norm_maps import AffineMap, mapped, norm_sites
from ifguide.models.transport import (
    fit_jointly,
    fit_one_by_one,
    mean_pools,
    threshold_maps,
    transport_cost,
)
from small_models import FAMILIES

DESCENT = {"steps": 25, "learning_rate": 0.04}


def encoded(model) -> list[list[list[int]]]:
    return [encode_texts_for(model, small_tokenizer(), side, 16) for side in (TOXIC, NONTOXIC)]


def cost_of(model, sites, maps) -> float:
    """C of all norms, with the sources computed through the maps and the targets without."""
    toxic, nontoxic = encoded(model)
    targets = pooled_over_texts(model, nontoxic, mean_pools(sites))
    with mapped(sites, maps):
        sources = pooled_over_texts(model, toxic, mean_pools(sites))
    return sum(
        ((sources[name].sort(0).values - targets[name].sort(0).values) ** 2).mean(0).sum().item()
        for name in targets
    )


def distance_from_identity(maps: dict[str, AffineMap]) -> float:
    return max(
        max((scale - 1).abs().max().item(), shift.abs().max().item())
        for scale, shift in maps.values()
    )


def test_the_cost_is_the_mean_square_between_sorted_values_summed_over_dimensions():
    responses = {"one": torch.tensor([[3.0, 0.0], [1.0, 4.0]])}
    targets = {"one": torch.tensor([[1.0, 1.0], [5.0, 2.0]])}
    # (1−1)² + (3−5)² and (0−1)² + (4−2)², each over two texts.
    assert transport_cost(responses, targets).item() == pytest.approx(4 / 2 + 5 / 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_are_their_own_targets_have_the_identity(family):
    model = word_model(family)
    toxic, _ = encoded(model)
    maps = fit_jointly(model, norm_sites(model), toxic, toxic[::-1], **DESCENT)
    assert distance_from_identity(maps) < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
def test_the_descent_lowers_the_cost_of_all_norms_together(family):
    model = word_model(family)
    sites, before = norm_sites(model), weights(model)
    maps = fit_jointly(model, sites, *encoded(model), **DESCENT)
    assert cost_of(model, sites, maps) < 0.5 * cost_of(model, sites, {})
    assert not touched(before, weights(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not maps[site.name].shift.any() for site in sites if not site.shifts)


def test_a_step_follows_the_gradient_of_the_sorted_differences():
    """Of the last norm alone, whose sources no map changes."""
    model = word_model("gpt_neox")
    (last,) = norm_sites(model)[-1:]
    toxic, nontoxic = encoded(model)
    source, target = (
        pooled_over_texts(model, side, mean_pools([last]))[last.name].sort(0).values
        for side in (toxic, nontoxic)
    )
    maps = fit_jointly(model, [last], toxic, nontoxic, steps=1, learning_rate=0.1)
    scale, shift = maps[last.name]
    torch.testing.assert_close(scale, 1 - 0.1 * 2 * ((source - target) * source).mean(0))
    torch.testing.assert_close(shift, -0.1 * 2 * (source - target).mean(0))


def test_the_last_norm_by_itself_comes_to_what_least_squares_says():
    model = word_model("gpt_neox")
    (last,) = norm_sites(model)[-1:]
    toxic, nontoxic = encoded(model)
    best = fit_one_by_one(model, [last], toxic, nontoxic, incremental=False)
    lowest = cost_of(model, [last], best)
    maps = fit_jointly(model, [last], toxic, nontoxic, steps=300, learning_rate=0.5)
    assert lowest <= cost_of(model, [last], maps) < 1.1 * lowest


def test_a_rate_at_which_the_descent_diverges_is_halved():
    model = word_model("gpt2")
    sites = norm_sites(model)
    maps = fit_jointly(model, sites, *encoded(model), steps=40, learning_rate=4.0)
    assert cost_of(model, sites, maps) < cost_of(model, sites, {})
    with pytest.raises(InputError, match="diverged at 1e\\+09, and still at"):
        fit_jointly(model, sites, *encoded(model), steps=40, learning_rate=1e9)


def test_thresholds_move_towards_the_identity_and_no_further():
    maps = {"one": AffineMap(torch.tensor([1.5, 0.9, 1.0, 0.0]), torch.tensor([0.3, -0.05, 0, 0]))}
    threshold_maps(maps, 0.1, 0.0)
    scale, shift = maps["one"]
    torch.testing.assert_close(scale, torch.tensor([1.4, 1.0, 1.0, 0.1]))
    torch.testing.assert_close(shift, torch.tensor([0.2, 0.0, 0.0, 0.0]))
    # ‖w − 1‖ = √(0.4² + 0.9²), less 0.2 √4 of it; b is shorter than that.
    norm = (0.4**2 + 0.9**2) ** 0.5
    threshold_maps(maps, 0.0, 0.2)
    torch.testing.assert_close(scale - 1, torch.tensor([0.4, 0, 0, -0.9]) * (1 - 0.4 / norm))
    assert not shift.any()


@pytest.mark.parametrize("penalty", [{"l1": 1e4}, {"group": 1e4}])
def test_a_huge_penalty_leaves_the_identity(penalty):
    model = word_model("gpt2")
    maps = fit_jointly(model, norm_sites(model), *encoded(model), **DESCENT, **penalty)
    assert distance_from_identity(maps) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_it_is_its_maps_as_hooks(family, tmp_path):
    start = word_model(family, dtype=torch.float32)
    sites, given = norm_sites(start), {"texts": [texts_file(tmp_path)]}
    options = {"texts": "labelled", **DESCENT, "strength": 0.5}
    edited = edit(Lineas, options, word_model(family, dtype=torch.float32), given)
    # The texts as the step draws them: one descent may sum them in another order.
    maps = fit_jointly(start, sites, *encoded(start), **DESCENT)
    with mapped(sites, {name: own.at(0.5) for name, own in maps.items()}):
        expected = logits(start)
    torch.testing.assert_close(logits(edited), expected, rtol=1e-4, atol=1e-4)
    assert (logits(edited) - logits(start)).abs().max() > 1e-2
    assert torch.equal(logits(reloaded(edited, tmp_path / "saved")), logits(edited))
    again = edit(Lineas, options, word_model(family, dtype=torch.float32), given)
    assert not touched(weights(edited), weights(again))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_strength_zero_it_is_the_start_model_bit_for_bit(family, tmp_path):
    model = word_model(family)
    before, settings = weights(model), model.config.to_dict()
    edit(Lineas, {"texts": "labelled", "strength": 0}, model, {"texts": [texts_file(tmp_path)]})
    assert not touched(before, weights(model))
    assert model.config.to_dict() == settings

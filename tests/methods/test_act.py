"""Lin-AcT: its least squares in known cases, one norm after another, and the edit."""

import numpy as np
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
from ifguide.methods.act import Act
from ifguide.models.activations import encode_texts_for, outputs_of
from ifguide.models.norm_maps import mapped, norm_sites
from ifguide.models.transport import fit_one_by_one, least_squares_map
from small_models import FAMILIES


def encoded(model) -> list[list[list[int]]]:
    return [encode_texts_for(model, small_tokenizer(), side, 16) for side in (TOXIC, NONTOXIC)]


def means(model, sites, texts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Of each norm and text, the mean over its tokens, one text at a time."""
    found: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
    with torch.no_grad(), outputs_of({site.name: site.module for site in sites}) as outputs:
        for ids in texts:
            model(input_ids=torch.tensor([ids]))
            for name, states in outputs.items():
                found[name].append(states[0, 1:].mean(0))
    return {name: torch.stack(rows) for name, rows in found.items()}


# --- least squares --------------------------------------------------------------------------------


def test_a_dimension_is_fitted_to_its_sorted_target():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    scale, shift = least_squares_map(source, target)
    for place in range(4):
        expected = np.polyfit(np.sort(source[:, place]), np.sort(target[:, place]), deg=1)
        np.testing.assert_allclose([scale[place], shift[place]], expected)
    scale, shift = least_squares_map(source, target, shifts=False)
    assert not shift.any()
    for place in range(4):
        design = np.sort(source[:, place : place + 1], axis=0)
        expected, *_ = np.linalg.lstsq(design, np.sort(target[:, place]), rcond=None)
        np.testing.assert_allclose(scale[place], expected.item())


@pytest.mark.parametrize("shifts", [True, False])
def test_the_same_texts_in_another_order_have_the_identity(shifts):
    source = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale, shift = least_squares_map(source, source.flip(0), shifts=shifts)
    torch.testing.assert_close(scale, torch.ones_like(scale))
    torch.testing.assert_close(shift, torch.zeros_like(shift), atol=1e-12, rtol=0)


def test_a_shift_and_a_scale_are_recovered():
    source = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted_scale, wanted_shift = torch.tensor([[0.5, 1.0, 2.0], [-1.0, 3.0, 0.0]]).double()
    target = (wanted_scale * source + wanted_shift)[torch.randperm(20)]
    scale, shift = least_squares_map(source, target)
    torch.testing.assert_close(scale, wanted_scale)
    torch.testing.assert_close(shift, wanted_shift)


def test_sources_that_are_all_the_same_are_moved_and_not_scaled():
    source = torch.tensor([[0.1, 0.0]]).repeat(7, 1)
    target = torch.arange(14.0).view(7, 2)
    scale, shift = least_squares_map(source, target)
    assert scale.tolist() == [1.0, 1.0]
    torch.testing.assert_close(source[0] + shift, target.mean(0).double(), check_dtype=False)
    assert least_squares_map(source, target, shifts=False).scale[1] == 1


# --- one norm after another -----------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("incremental", [True, False])
def test_a_norm_is_fitted_with_those_before_it_at_work_or_none(family, incremental):
    model = word_model(family)
    sites = norm_sites(model)
    toxic, nontoxic = encoded(model)
    found = fit_one_by_one(model, sites, toxic, nontoxic, incremental=incremental, batch_size=3)
    targets = means(model, sites, nontoxic)
    before = {}
    for site in sites:
        with mapped(sites, before):
            sources = means(model, [site], toxic)[site.name]
        expected = least_squares_map(sources, targets[site.name], shifts=site.shifts)
        torch.testing.assert_close(found[site.name], expected)
        if incremental:
            before[site.name] = expected


# --- the edit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_it_is_its_maps_as_hooks(family, tmp_path):
    start = word_model(family, dtype=torch.float32)
    sites, given = norm_sites(start), {"texts": [texts_file(tmp_path)]}
    maps = fit_one_by_one(start, sites, *encoded(start), incremental=True)
    with mapped(sites, {name: own.at(0.5) for name, own in maps.items()}):
        expected = logits(start)
    options = {"texts": "labelled", "strength": 0.5}
    edited = edit(Act, options, word_model(family, dtype=torch.float32), given)
    torch.testing.assert_close(logits(edited), expected, rtol=1e-5, atol=1e-5)
    assert (logits(edited) - logits(start)).abs().max() > 1e-3
    assert torch.equal(logits(reloaded(edited, tmp_path / "saved")), logits(edited))
    again = edit(Act, options, word_model(family, dtype=torch.float32), given)
    assert not touched(weights(edited), weights(again))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_strength_zero_it_is_the_start_model_bit_for_bit(family, tmp_path):
    model = word_model(family)
    before, settings = weights(model), model.config.to_dict()
    edit(Act, {"texts": "labelled", "strength": 0}, model, {"texts": [texts_file(tmp_path)]})
    assert not touched(before, weights(model))
    assert model.config.to_dict() == settings


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_half_precision_stays_one(family, tmp_path):
    model = word_model(family, dtype=torch.bfloat16)
    before, given = weights(model), {"texts": [texts_file(tmp_path)]}
    edit(Act, {"texts": "labelled", "samples": 3}, model, given)
    after = weights(model)
    assert {values.dtype for values in after.values()} == {torch.bfloat16}
    assert any("norm" in name or "ln_" in name for name in touched(before, after))
    matrices = {name for name in before if before[name].dim() > 1}
    assert not touched(before, after) & matrices

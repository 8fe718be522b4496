"""Model Surgery: exactly the rows most opposed to the probe change, each by the same vector."""

import math
from pathlib import Path

import pytest
import torch

from edited_models import logits, reloaded, state, touched
from ifguide.errors import InputError
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.model_surgery import ModelSurgery, ModelSurgeryOptions, most_opposed
from ifguide.methods.step import EditJob
from small_models import FAMILIES, small_model

WIDTH = 16
GATES = {
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight",
    "llama": "model.layers.{}.mlp.gate_proj.weight",
    "gpt2": "transformer.h.{}.mlp.c_fc.weight",
}


def probe(width: int = WIDTH) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(3))


def edited(model, folder: Path, width: int = WIDTH, **options):
    path = folder / "probe.safetensors"
    write_tensors(path, {"weight": probe(width), "bias": torch.zeros(1)}, {})
    ModelSurgery(ModelSurgeryOptions(texts="labelled", **options)).edit(
        EditJob(model, None, 0), {"texts": [path]}
    )
    return model


def gate_rows(model, family: str) -> list[torch.Tensor]:
    """The rows of the gates, read by name: columns in GPT-2, whose weights are (in, out)."""
    tensors = [state(model)[GATES[family].format(block)] for block in range(2)]
    return [tensor.T if family == "gpt2" else tensor for tensor in tensors]


@pytest.mark.parametrize("scale", ["raw", "relative"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_most_opposed_gain_the_direction(family, scale, tmp_path):
    """Found one by one over both blocks: 24 rows each, of which a quarter changes."""
    model = small_model(family)
    before = gate_rows(model, family)
    edited(model, tmp_path, strength=0.7, share=0.25, scale=scale)
    after = gate_rows(model, family)
    v = probe().double() / 2
    if scale == "relative":
        v = v / v.norm() * torch.cat([rows.norm(dim=1) for rows in before]).mean()
    cosines = {
        (block, row): float(torch.cosine_similarity(before[block][row], v, dim=0))
        for block in range(2)
        for row in range(24)
    }
    lowest = set(sorted(cosines, key=cosines.get)[:12])
    assert {block for block, _ in lowest} == {0, 1}
    for block, row in cosines:
        gained = 0.7 * v if (block, row) in lowest else torch.zeros(WIDTH, dtype=torch.float64)
        torch.testing.assert_close(after[block][row] - before[block][row], gained)
        cosine = float(torch.cosine_similarity(after[block][row], v, dim=0))
        assert cosine >= cosines[block, row] - 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_only_gates_are_touched_and_the_model_is_loaded_as_it_was_saved(family, tmp_path):
    model = small_model(family, torch.float32)
    before, rows = state(model), gate_rows(model, family)
    edited(model, tmp_path, share=0.25)
    assert touched(before, model) == {GATES[family].format(block) for block in range(2)}
    changed = sum(
        int((old != new).any(1).sum())
        for old, new in zip(rows, gate_rows(model, family), strict=True)
    )
    assert changed == 12
    again = reloaded(model, tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_strength_0_it_is_the_model_that_it_began_with(family, tmp_path):
    model = small_model(family)
    before = state(model)
    edited(model, tmp_path, strength=0, share=1.0)
    assert not touched(before, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_stay_keep_their_bits_in_half_precision(family, tmp_path):
    model = small_model(family, torch.bfloat16)
    before = gate_rows(model, family)
    edited(model, tmp_path, share=0.25, strength=2.0)
    after = gate_rows(model, family)
    v = probe().double()
    v *= 2 * torch.cat([rows.double().norm(dim=1) for rows in before]).mean() / v.norm()
    changed = 0
    for old, new in zip(before, after, strict=True):
        moved = (old != new).any(1)
        changed += int(moved.sum())
        expected = (old[moved].double() + v).bfloat16()
        torch.testing.assert_close(new[moved], expected, rtol=2**-7, atol=1e-6)
    assert changed == 12


def test_the_length_of_the_probe_means_nothing_relatively(tmp_path):
    one = edited(small_model("llama"), tmp_path, share=0.1)
    path = tmp_path / "long.safetensors"
    write_tensors(path, {"weight": 100 * probe(), "bias": torch.zeros(1)}, {})
    other = small_model("llama")
    options = ModelSurgeryOptions(texts="labelled", share=0.1)
    ModelSurgery(options).edit(EditJob(other, None, 0), {"texts": [path]})
    torch.testing.assert_close(logits(one), logits(other))


def test_rows_are_counted_upwards_and_ties_go_by_their_place():
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    rows = [
        torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
        torch.tensor([[-1.0, 0.0], [5.0, 0.0]], dtype=torch.float64),
    ]
    found = [
        [mask.tolist() for mask in most_opposed(rows, direction, share)]
        for share in (0.01, 0.4, 0.41)
    ]
    assert found == [
        [[False, True, False], [False, False]],
        [[False, True, False], [True, False]],
        [[True, True, False], [True, False]],
    ]
    assert math.ceil(0.41 * 5) == 3


def test_a_probe_of_another_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="probe.safetensors: a probe of 8 numbers, but .* read 16"):
        edited(small_model("llama"), tmp_path, width=8)


def test_a_family_whose_gates_have_other_names_is_refused(tmp_path):
    with pytest.raises(InputError, match="OPTForCausalLM: no layer is named gate_proj"):
        edited(small_model("opt"), tmp_path)

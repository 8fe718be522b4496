"""AurA, Damp and Det0: areas under ROC curves, what neurons get for them, and how it is folded."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from edited_activations import (
    HEADS,
    NONTOXIC,
    TOXIC,
    edit,
    hooked,
    logits,
    reloaded,
    small_tokenizer,
    touched,
    weights,
    word_model,
)
from ifguide.errors import InputError
from ifguide.files.tensor_files import read_tensors, write_tensors
from ifguide.methods.aura import Aura, damping
from ifguide.models.activations import measure_activations
from ifguide.models.class_separation import auroc_of_columns
from ifguide.models.tracked_layers import tracked_layers
from small_models import FAMILIES

VARIANTS = [
    {"variant": "aura"},
    {"variant": "damp", "share": 0.2},
    {"variant": "det0", "share": 0.1},
]


def activations_file(model, folder):
    path = folder / "activations.safetensors"
    labels = [1.0] * len(TOXIC) + [0.0] * len(NONTOXIC)
    texts = [*TOXIC, *NONTOXIC]
    measured = measure_activations(model, small_tokenizer(), texts, labels, max_length=16)
    write_tensors(path, measured, {})
    return path


def factors_of(model, path, options: dict) -> dict[str, torch.Tensor]:
    """By the definition, neuron by neuron, with another library's areas."""
    activations, _ = read_tensors(path)
    toxic = activations["labels"] >= 0.5
    names = [layer.name for layer in tracked_layers(model)[0] if "mlp" in layer.name]
    areas = {
        name: torch.tensor(
            [
                roc_auc_score(toxic, column)
                for column in activations[f"linears.{name}.maximum"].T.numpy()
            ]
        )
        for name in names
    }
    if options["variant"] == "aura":
        return {name: 1 - 2 * (part - 0.5).clamp(min=0) for name, part in areas.items()}
    flat = torch.cat(list(areas.values()))
    best = np.argsort(-flat.numpy(), kind="stable")[: round(options["share"] * len(flat))]
    factors = torch.ones(len(flat), dtype=torch.float64)
    factors[best] = {"damp": 0.5, "det0": 0.0}[options["variant"]]
    return dict(zip(names, factors.split([len(part) for part in areas.values()]), strict=True))


# --- areas and factors ----------------------------------------------------------------------------


def test_areas_are_those_of_every_pair_where_a_tie_counts_half():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 6, (40, 5), generator=generator).float()
    toxic = torch.arange(40) % 3 == 0
    pairs = values[toxic].unsqueeze(1) - values[~toxic].unsqueeze(0)
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean((0, 1))
    torch.testing.assert_close(auroc_of_columns(values, toxic), expected)


@pytest.mark.parametrize("kind", ["toxic", "nontoxic"])
def test_texts_of_one_kind_have_no_areas(kind):
    with pytest.raises(InputError, match=f"all 3 labelled texts are {kind}"):
        auroc_of_columns(torch.zeros(3, 2), torch.full((3,), kind == "toxic"))


def test_a_perfect_separator_is_silenced_and_an_opposed_one_is_left_alone():
    toxic = torch.tensor([True, True, False, False])
    values = torch.tensor([[3.0, 0.0, 1.0], [2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [0.0, 3.0, 1.0]])
    factors = damping({"layer": auroc_of_columns(values, toxic)}, "aura", 0.5)
    assert factors["layer"].tolist() == [0.0, 1.0, 1.0]


def test_labels_that_say_nothing_damp_nothing():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4000, 50, generator=generator)
    toxic = torch.rand(4000, generator=generator) < 0.5
    factors = damping({"layer": auroc_of_columns(values, toxic)}, "aura", 0.5)["layer"]
    assert ((factors >= 0.9) & (factors <= 1)).all()


@pytest.mark.parametrize(("variant", "factor"), [("damp", 0.5), ("det0", 0.0)])
def test_a_share_of_all_layers_neurons_is_taken_together(variant, factor):
    separation = {"one": torch.tensor([0.9, 0.2, 0.8]), "other": torch.tensor([0.85, 0.5])}
    found = damping(separation, variant, 0.4)
    assert found["one"].tolist() == [factor, 1.0, 1.0]
    assert found["other"].tolist() == [factor, 1.0]


# --- the edit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["variant"])
@pytest.mark.parametrize(("family", "tied"), HEADS)
def test_folded_it_is_what_a_hook_makes_of_the_layers(family, tied, options, tmp_path):
    start = word_model(family, tied=tied, dtype=torch.float32)
    path = activations_file(start, tmp_path)
    modules = {
        layer.name: layer.module for layer in tracked_layers(start)[0] if "mlp" in layer.name
    }
    factors = factors_of(start, path, options)
    assert any((factor < 1).any() for factor in factors.values())
    for strength in (0.3, 1.0):
        with hooked(
            modules,
            lambda name, y, s=strength: (1 - s) * y + s * factors[name].to(y) * y,
        ):
            expected = logits(start)
        edited = edit(
            Aura,
            {"texts": "labelled", **options, "strength": strength},
            word_model(family, tied=tied, dtype=torch.float32),
            {"texts": [path]},
        )
        torch.testing.assert_close(logits(edited), expected, rtol=1e-5, atol=1e-5)
        assert (logits(edited) - logits(start)).abs().max() > 1e-3
        own = reloaded(edited, tmp_path / f"{strength}")
        assert torch.equal(logits(own), logits(edited))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_touches_the_layers_that_it_names_and_no_others(family, tmp_path):
    model = word_model(family)
    before, given = weights(model), {"texts": [activations_file(model, tmp_path)]}
    named = {
        name
        for layer in tracked_layers(model)[0]
        if "mlp" in layer.name
        for name, _ in layer.named_parameters()
    }
    assert touched(before, weights(edit(Aura, {"texts": "labelled"}, model, given))) == named


@pytest.mark.parametrize("family", FAMILIES)
def test_at_strength_zero_it_is_the_start_model_bit_for_bit(family, tmp_path):
    model = word_model(family)
    before, given = weights(model), {"texts": [activations_file(model, tmp_path)]}
    off = {"texts": "labelled", "variant": "det0", "strength": 0}
    assert not touched(before, weights(edit(Aura, off, model, given)))


def test_layers_that_the_model_does_not_have_are_refused(tmp_path):
    model = word_model("llama")
    given = {"texts": [activations_file(model, tmp_path)]}
    with pytest.raises(InputError, match=r"aura\.layers: 'feed' is in no name of a linear layer"):
        edit(Aura, {"texts": "labelled", "layers": "feed"}, model, given)
    assert Aura.from_config({"texts": "labelled", "layers": "("}).mistake()[0] == "layers"

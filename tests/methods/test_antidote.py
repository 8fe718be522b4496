"""Antidote: the weights that toxic text uses most become zero, and as many of each row."""

from pathlib import Path

import pytest
import torch

from edited_models import TEXTS, logits, reloaded, small_tokenizer, state, touched
from ifguide.data.corpus import end_of_text_id
from ifguide.errors import InputError
from ifguide.files.artifacts import write_jsonl
from ifguide.methods.antidote import (
    Antidote,
    AntidoteOptions,
    highest_of_rows,
    mean_squares,
    targets,
    wanda_scores,
)
from ifguide.methods.step import EditJob, LabelledTexts
from ifguide.models.tracked_layers import tracked_layers
from small_models import FAMILIES, OneLinearLayer, small_model

VOCABULARY = 270
QUERY_KEY_VALUE = {
    "gpt_neox": ["gpt_neox.layers.{}.attention.query_key_value"],
    "llama": [f"model.layers.{{}}.self_attn.{name}_proj" for name in "qkv"],
    "gpt2": ["transformer.h.{}.attn.c_attn"],
}


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def model_of(family: str, dtype: torch.dtype = torch.float64):
    return small_model(family, dtype, vocabulary=VOCABULARY)


def edited(model, tokenizer, folder: Path, *, seed: int = 0, nontoxic: str = "no", **options):
    path = folder / "texts.jsonl"
    records = [{"text": text, "label": 1.0} for text in TEXTS] + [{"text": nontoxic, "label": 0.0}]
    write_jsonl(path, records)
    step = Antidote(AntidoteOptions(texts="labelled", **options))
    step.edit(EditJob(model, tokenizer, seed), {name: [path] for name in step.needs()})
    return model


def names_of(family: str, which: str) -> set[str]:
    if which == "all":
        return {layer.name for layer in tracked_layers(model_of(family))[0]}
    return {name.format(block) for name in QUERY_KEY_VALUE[family] for block in range(2)}


def matrix(tensors: dict[str, torch.Tensor], name: str, family: str) -> torch.Tensor:
    """The weights as (outputs, inputs): GPT-2 stores them the other way round."""
    weight = tensors[f"{name}.weight"]
    return weight.T if family == "gpt2" else weight


@pytest.mark.parametrize("which", ["qkv", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_of_each_row_the_weights_scored_highest_become_zero(family, which, tokenizer, tmp_path):
    """|W| ‖x‖₂ by the definition: every text by itself, row by row."""
    model = model_of(family)
    before = state(model)
    inputs = inputs_by_themselves(model, tokenizer, names_of(family, which))
    edited(model, tokenizer, tmp_path, strength=0.3, targets=which)
    assert touched(before, model) == {f"{name}.weight" for name in names_of(family, which)}
    for name, rows in inputs.items():
        old, new = (matrix(tensors, name, family) for tensors in (before, model.state_dict()))
        zeros = old.shape[1] - int(old.shape[1] * 0.7)
        scores = old.abs() * rows.norm(dim=0)
        for own, found, scored in zip(old, new, scores, strict=True):
            highest = set(scored.argsort(descending=True)[:zeros].tolist())
            assert set((found == 0).nonzero().squeeze(1).tolist()) == highest
            kept = [place for place in range(len(own)) if place not in highest]
            assert torch.equal(own[kept], found[kept])


@torch.no_grad()
def inputs_by_themselves(model, tokenizer, names: set[str]) -> dict[str, torch.Tensor]:
    """What each layer reads of all toxic texts, the end of text before each left out."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, arguments, name=name: found[name].append(arguments[0][0, 1:])
        )
        for name in names
    ]
    for text in TEXTS:
        ids = [end_of_text_id(tokenizer), *tokenizer(text)["input_ids"]]
        model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def test_a_case_by_hand():
    weight = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -0.1]])
    scores = wanda_scores(weight, torch.tensor([16.0, 1.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(
        scores, torch.tensor([[4.0, 2.0, 1.5], [2.0, 4.0, 0.05]], dtype=torch.float64)
    )
    # int(3 · 0.5) = 1 weight of each row is kept, that of the lowest score.
    assert highest_of_rows(scores, 0.5).tolist() == [[True, True, False], [True, True, False]]
    # int(3 · 0.7) = 2.
    assert highest_of_rows(scores, 0.3).tolist() == [[True, False, False], [False, True, False]]
    assert not highest_of_rows(scores, 0.0).any()
    assert highest_of_rows(scores, 1.0).all()


def test_a_row_may_be_scaled():
    weight = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    squares = torch.rand(10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = torch.tensor([[0.25], [2.0], [8.0], [1.0]])
    marked, again = (
        highest_of_rows(wanda_scores(own, squares), 0.4) for own in (weight, scale * weight)
    )
    assert torch.equal(marked, again)
    assert (marked.sum(1) == 4).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_other_texts_of_a_batch_change_no_input(family):
    model = model_of(family)
    layers = targets(model, "all")
    texts = [[0, 5, 9, 9, 200, 31], [0, 17], [0, 4, 250]]
    together = mean_squares(model, layers, texts)
    alone = [mean_squares(model, layers, [text]) for text in texts]
    for name, squares in together.items():
        weighed = sum(
            len(t) * one[name] for t, one in zip((5 * "t", "t", "tt"), alone, strict=True)
        )
        torch.testing.assert_close(squares, weighed / 8, rtol=1e-10, atol=0)


@pytest.mark.parametrize("mask", ["scores", "random"])
@pytest.mark.parametrize("family", FAMILIES)
def test_of_strength_0_it_is_the_model_that_it_began_with(family, mask, tokenizer, tmp_path):
    model = model_of(family)
    before = state(model)
    edited(model, tokenizer, tmp_path, strength=0, targets="all", mask=mask)
    assert not touched(before, model)


@pytest.mark.parametrize("mask", ["scores", "random"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_loaded_as_it_was_saved(family, mask, tokenizer, tmp_path):
    model = edited(model_of(family, torch.float32), tokenizer, tmp_path, targets="all", mask=mask)
    again = reloaded(model, tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))


def test_nontoxic_texts_are_not_read(tokenizer, tmp_path):
    one, other = (
        edited(model_of("llama"), tokenizer, tmp_path, nontoxic=text) for text in ("no", "a lamb")
    )
    assert not touched(state(one), other)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_control_has_as_many_zeros_at_random(family, tokenizer, tmp_path):
    """In each row, others with another seed, and the same with the same one."""
    options = {"strength": 0.3, "targets": "all"}
    scored = edited(model_of(family), tokenizer, tmp_path, **options)
    first, again, other = (
        edited(model_of(family), None, tmp_path, seed=seed, mask="random", **options)
        for seed in (1, 1, 2)
    )
    assert not touched(state(first), again)
    names = names_of(family, "all")
    assert touched(state(first), other) == {f"{name}.weight" for name in names}
    for name in names:
        zeros = [
            (matrix(model.state_dict(), name, family) == 0) for model in (scored, first, other)
        ]
        assert torch.equal(zeros[0].sum(1), zeros[1].sum(1))
        assert torch.equal(zeros[0].sum(1), zeros[2].sum(1))
        assert not torch.equal(zeros[0], zeros[1])


def test_a_random_mask_needs_no_texts():
    needs = [
        Antidote(AntidoteOptions(texts="t", mask=mask)).needs() for mask in ("scores", "random")
    ]
    assert needs == [{"texts": LabelledTexts("t")}, {}]


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_stay_keep_their_bits_in_half_precision(family, tokenizer, tmp_path):
    model = model_of(family, torch.bfloat16)
    before = state(model)
    edited(model, tokenizer, tmp_path, strength=0.3)
    changed = touched(before, model)
    assert changed == {f"{name}.weight" for name in names_of(family, "qkv")}
    for name in changed:
        found = model.state_dict()[name]
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, torch.where(found == 0, 0, before[name]))


def test_a_family_without_such_layers_is_refused():
    with pytest.raises(InputError, match="no layer is named query_key_value, .*`targets: all`"):
        Antidote.from_config({"texts": "labelled", "targets": "qkv"}).require_model(
            OneLinearLayer()
        )

"""Activations of labelled texts, against a plain loop over one text at a time, and the probe."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.errors import InputError
from ifguide.models.activations import (
    measure_activations,
    norms_of,
    outputs_of,
    pooled_last,
    pooled_maximum,
    pooled_mean,
)
from ifguide.models.probe import fit_probe
from ifguide.models.tracked_layers import tracked_layers
from small_models import FAMILIES, OTHER_DECODERS, POSITIONS, small_model

TEXTS = [
    "the cook is a friend of the miller",
    "a friend",
    "of",
    "is the miller a cook",
    "the miller of the cook is a friend of the cook",
]
LABELS = [0.0, 1.0, 0.25, 0.75, 0.0]


def model_and_tokenizer(family: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = train_tokenizer(["the cook is a friend of the miller"] * 3, 280)
    return small_model(family, vocabulary=len(tokenizer)), tokenizer


@torch.no_grad()
def one_at_a_time(model, tokenizer, texts) -> dict[str, list[torch.Tensor]]:
    """The definition: each text alone, unpadded, after an end of text that is left out."""
    found: dict[str, list[torch.Tensor]] = {}
    head = model.get_output_embeddings()
    linears = {layer.name: layer.module for layer in tracked_layers(model)[0]}
    for text in texts:
        ids = torch.tensor([[end_of_text_id(tokenizer), *tokenizer(text)["input_ids"]]])
        read = []
        hook = head.register_forward_pre_hook(lambda _, inputs, read=read: read.append(inputs[0]))
        with outputs_of({**norms_of(model), **linears}) as outputs:
            model(input_ids=ids, use_cache=False)
        hook.remove()
        hidden = read[0][0, 1:]
        found.setdefault("hidden.mean", []).append(hidden.mean(0))
        found.setdefault("hidden.last", []).append(hidden[-1])
        # Some families flatten texts and places.
        states = {name: part.reshape(ids.shape[1], -1)[1:] for name, part in outputs.items()}
        for name in norms_of(model):
            found.setdefault(f"norms.{name}.mean", []).append(states[name].mean(0))
        for name in linears:
            found.setdefault(f"linears.{name}.maximum", []).append(states[name].amax(0))
    return found


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_DECODERS])
def test_they_are_those_of_one_text_at_a_time(family):
    model, tokenizer = model_and_tokenizer(family)
    found = measure_activations(model, tokenizer, TEXTS, LABELS, max_length=POSITIONS, batch_size=3)
    expected = one_at_a_time(model, tokenizer, TEXTS)
    assert set(found) == {*expected, "labels"}
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], torch.stack(rows).float(), rtol=1e-5, atol=1e-6)
    assert found["labels"].tolist() == LABELS
    assert all(values.dtype == torch.float32 for values in found.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_and_order_change_nothing(family):
    model, tokenizer = model_and_tokenizer(family)
    found = measure_activations(model, tokenizer, TEXTS, LABELS, max_length=POSITIONS)
    order = [3, 0, 4, 2, 1]
    other = measure_activations(
        model,
        tokenizer,
        [TEXTS[place] for place in order],
        [LABELS[place] for place in order],
        max_length=POSITIONS,
        batch_size=2,
    )
    for name, values in found.items():
        torch.testing.assert_close(other[name], values[order])


def test_a_text_ends_where_it_may_be_no_longer_or_the_model_reads_no_further():
    model, tokenizer = model_and_tokenizer("gpt2")
    word, words = "the", " ".join(["the"] * (POSITIONS + 20))
    whole = measure_activations(model, tokenizer, [word], [0.0], max_length=2)
    cut = measure_activations(model, tokenizer, [words], [0.0], max_length=2)
    torch.testing.assert_close(cut, whole)
    longest = measure_activations(model, tokenizer, [words], [0.0], max_length=10 * POSITIONS)
    fitting = measure_activations(model, tokenizer, [words], [0.0], max_length=POSITIONS)
    torch.testing.assert_close(longest, fitting)


def test_an_empty_text_is_refused():
    model, tokenizer = model_and_tokenizer("gpt2")
    with pytest.raises(InputError, match="labelled text 2 is empty"):
        measure_activations(model, tokenizer, ["the", ""], [0.0, 1.0], max_length=8)


def test_pools_leave_out_what_stands_at_other_places():
    states = torch.tensor([[[9.0], [1.0], [3.0], [torch.inf]], [[9.0], [-2.0], [-4.0], [-6.0]]])
    valid = torch.tensor([[False, True, True, False], [False, True, True, True]])
    assert pooled_mean(states, valid).tolist() == [[2.0], [-4.0]]
    assert pooled_maximum(states, valid).tolist() == [[3.0], [-2.0]]
    assert pooled_last(states, valid).tolist() == [[3.0], [-6.0]]


def test_a_mean_of_half_precision_is_summed_in_float32():
    states = torch.ones(1, 5000, 1, dtype=torch.bfloat16)
    valid = torch.ones(1, 5000, dtype=torch.bool)
    assert pooled_mean(states, valid).item() == 1.0


# --- the probe ------------------------------------------------------------------------------------


def activations(texts: int = 60, width: int = 4) -> dict[str, torch.Tensor]:
    """States of different scales: two dimensions lean on the label, the last is constant."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.arange(texts) % 3 == 0).float()
    states = torch.randn(texts, width, generator=generator)
    states += labels.unsqueeze(1) * torch.tensor([1.0, -0.5, 0.0, 0.0])
    states = states * torch.tensor([1.0, 20.0, 0.1, 0.0]) + torch.tensor([5.0, 0.0, -1.0, 7.0])
    return {"hidden.mean": states, "labels": labels}


def test_the_probe_is_the_minimum_of_its_formula():
    """By another optimiser, which knows the formula alone."""
    given = activations()
    states = given["hidden.mean"].double().numpy()
    signs = 2 * given["labels"].numpy() - 1
    spread = states.std(0)
    units = states / np.where(spread > 1e-6, spread, 1.0)
    units[:, spread <= 1e-6] = 0.0

    def loss(parameters: np.ndarray) -> float:
        margins = signs * (units @ parameters[:-1] + parameters[-1])
        return 0.5 * (parameters[:-1] ** 2).sum() + np.logaddexp(0, -margins).sum()

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    probe = fit_probe(given)
    found = states @ probe["weight"].double().numpy() + probe["bias"].item()
    np.testing.assert_allclose(found, units @ best[:-1] + best[-1], atol=1e-4)
    assert probe["weight"][3] == 0
    assert {name: tuple(values.shape) for name, values in probe.items()} == {
        "weight": (4,),
        "bias": (1,),
    }


def test_classes_swapped_negate_the_probe():
    given = activations()
    probe = fit_probe(given)
    swapped = fit_probe({**given, "labels": 1 - given["labels"]})
    for name, values in probe.items():
        torch.testing.assert_close(swapped[name], -values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["toxic", "nontoxic"])
def test_texts_of_one_kind_have_no_probe(kind):
    given = activations()
    labels = torch.full_like(given["labels"], float(kind == "toxic"))
    with pytest.raises(InputError, match=f"all 60 labelled texts are {kind}"):
        fit_probe({**given, "labels": labels})

"""Self-disciplined autoregressive sampling: its discriminant, its formula, and its limits."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from guided_texts import assert_rows_do_not_matter, speaker, spoken
from ifguide.errors import InputError
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.evaluation.margin_weighing import MarginGuidance, weighed_by_margin
from ifguide.files.tensor_files import read_tensors, write_tensors
from ifguide.methods.sasa import Sasa
from ifguide.methods.step import PREPARED, DecodingJob, PreparationJob
from ifguide.models.activations import measure_activations
from ifguide.models.discriminant import fit_discriminant, margins
from small_models import FAMILIES, small_model

TEXTS = ["the cook is a friend", "a friend of the miller", "the miller", "is it a cook", "of the"]
LABELS = [0.0, 0.2, 1.0, 0.5, 0.9]


def states_of_two_classes() -> tuple[torch.Tensor, torch.Tensor]:
    """States of unequal classes whose directions are far from equally spread."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    toxic = torch.arange(90) % 3 == 0
    states = torch.randn(90, 6, generator=generator, dtype=torch.float64) @ spread
    states[toxic] += torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 0.1], dtype=torch.float64)
    return states, toxic


def test_the_discriminant_is_that_of_an_independent_library_up_to_scale():
    states, toxic = states_of_two_classes()
    found = fit_discriminant(states, toxic)
    library = LinearDiscriminantAnalysis(solver="lsqr").fit(states.numpy(), ~toxic.numpy())
    expected = library.coef_[0] / np.linalg.norm(library.coef_[0])
    np.testing.assert_allclose(found["weight"].numpy(), expected, rtol=1e-9)
    middle = (states[toxic].mean(0) + states[~toxic].mean(0)) / 2
    torch.testing.assert_close(margins(middle, found), torch.zeros(1, dtype=torch.float64))
    assert margins(states[~toxic].mean(0), found) > 0 > margins(states[toxic].mean(0), found)


def test_classes_that_are_swapped_negate_the_discriminant():
    states, toxic = states_of_two_classes()
    one, other = fit_discriminant(states, toxic), fit_discriminant(states, ~toxic)
    for name in ("weight", "bias"):
        torch.testing.assert_close(one[name], -other[name])


def test_directions_without_variance_are_left_out():
    """Of states in a plane of a wider space, the discriminant is that of the plane."""
    states, toxic = states_of_two_classes()
    plane = torch.linalg.qr(torch.randn(9, 6, dtype=torch.float64)).Q
    wide = fit_discriminant(states @ plane.T, toxic)
    torch.testing.assert_close(wide["weight"], plane @ fit_discriminant(states, toxic)["weight"])


def test_classes_of_one_mean_are_refused():
    states = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    with pytest.raises(InputError, match="have one mean"):
        fit_discriminant(states, torch.tensor([True, True, False, False]))


PROBABILITIES = torch.tensor([[0.5, 0.25, 0.15, 0.0], [0.4, 0.3, 0.2, 0.05]], dtype=torch.float64)


def test_log_odds_of_two_candidates_change_by_their_shares_of_beta():
    margin = torch.tensor([[0.3, -1.0, 2.0, 9.0], [1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    beta = 4.0
    found = weighed_by_margin(PROBABILITIES, margin, beta)
    for row, count in enumerate((3, 4)):
        shares = np.exp(margin[row, :count].numpy())
        shares /= shares.sum()
        before = PROBABILITIES[row, :count].log().numpy()
        after = found[row, :count].log().numpy()
        changed = (after - before)[:, None] - (after - before)
        np.testing.assert_allclose(changed, beta * (shares[:, None] - shares), atol=1e-12)
        assert abs(changed).max() <= beta
    assert found[0, 3] == 0  # outside the nucleus, whatever its margin
    torch.testing.assert_close(found.sum(-1), torch.ones(2, dtype=torch.float64))


def test_equal_margins_and_no_beta_leave_the_nucleus():
    nucleus = PROBABILITIES / PROBABILITIES.sum(-1, keepdim=True)
    equal = weighed_by_margin(PROBABILITIES, torch.full((2, 4), 3.0, dtype=torch.float64), 50.0)
    torch.testing.assert_close(equal, nucleus)
    other = torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(weighed_by_margin(PROBABILITIES, other, 0.0), nucleus)


def test_those_beyond_the_candidates_that_are_read_keep_their_odds():
    margin = torch.tensor([[1.0, -1.0], [2.0, 0.0]], dtype=torch.float64)
    found = weighed_by_margin(PROBABILITIES, margin, 3.0)
    torch.testing.assert_close(found[1, 2] / found[1, 3], PROBABILITIES[1, 2] / 0.05)
    large = weighed_by_margin(PROBABILITIES, margin, 5000.0)  # beyond what exp can take
    torch.testing.assert_close(large[:, 0], torch.ones(2, dtype=torch.float64))


def discriminant(width: int = 16) -> dict[str, torch.Tensor]:
    weight = torch.randn(width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"weight": weight / weight.norm(), "bias": torch.tensor([0.3], dtype=torch.float64)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_drawn_by_the_formula(family):
    """Row by row, token by token and candidate by candidate, without caches, batches or masks."""
    model, sampling = small_model(family), Sampling(continuations=4, max_new_tokens=5)
    prompts = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])
    uniform = torch.from_numpy(np.concatenate([uniform_numbers(s, sampling) for s in (5, 6)]))
    guidance = MarginGuidance(model, discriminant(), 9.0, 7, sampling.max_new_tokens)
    found = generate_batch(model, prompts, uniform, sampling, end_of_text=-1, guidance=guidance)
    with torch.no_grad():
        for row, written in enumerate(found.tolist()):
            for step, token in enumerate(written):
                text = prompts[row // 4].tolist() + written[:step]
                p, order = (
                    model(torch.tensor([text]))
                    .logits[0, -1]
                    .softmax(-1)
                    .sort(descending=True, stable=True)
                )
                size = int((p.cumsum(0) - p < sampling.top_p).sum())
                scores = []
                for candidate in order[: min(size, 7)].tolist():
                    body = model.base_model(torch.tensor([[*text, candidate]]))
                    h = body.last_hidden_state[0, -1]
                    scores.append(discriminant()["weight"].dot(h).item() + 0.3)
                shares = np.exp(scores) / np.exp(scores).sum()
                z = p[:size].log().numpy() + 9.0 * np.pad(shares, (0, size - len(shares)))
                edges = np.exp(z).cumsum() / np.exp(z).sum()
                drawn = np.searchsorted(edges, uniform[row, step].item(), side="right")
                assert token == order[drawn].item()


@pytest.fixture(params=FAMILIES)
def prepared(request, tmp_path):
    """A model, its tokenizer, and what the step prepares for it from labelled texts."""
    model, tokenizer = speaker(request.param)
    measured = measure_activations(model, tokenizer, TEXTS, LABELS, max_length=16)
    write_tensors(tmp_path / "activations.safetensors", measured, {})
    step = Sasa.from_config({"texts": "labelled"})
    job = PreparationJob(model, tokenizer, 0, tmp_path)
    tensors = step.prepare(job, {"texts": [tmp_path / "activations.safetensors"]})
    write_tensors(tmp_path / "prepared.safetensors", tensors, {})
    return model, tokenizer, tmp_path / "prepared.safetensors"


def test_rows_and_padding_do_not_matter(prepared):
    model, tokenizer, path = prepared
    for candidates in (4, None):
        step = Sasa.from_config({"texts": "any", "beta": 40.0, "max_candidates": candidates})
        with step.decode(DecodingJob(model, tokenizer, 6), {PREPARED: [path]}) as guidance:
            assert_rows_do_not_matter(model, tokenizer, guidance)


def test_without_beta_it_is_the_model_s_own_sampling(prepared):
    model, tokenizer, path = prepared
    step = Sasa.from_config({"texts": "labelled", "beta": 0})
    with step.decode(DecodingJob(model, tokenizer, 6), {PREPARED: [path]}) as guidance:
        assert spoken(model, tokenizer, guidance) == spoken(model, tokenizer, None)
    tensors, _ = read_tensors(path)
    for candidates in (4, None):  # and the formula says so as well
        guidance = MarginGuidance(model, tensors, 0.0, candidates, 6)
        assert spoken(model, tokenizer, guidance) == spoken(model, tokenizer, None)


def test_a_large_beta_says_what_lies_farthest_on_the_nontoxic_side():
    model = small_model("gpt2")
    prompts, sampling = torch.tensor([[3, 1, 4]]), Sampling(1, top_p=1.0, max_new_tokens=1)
    guidance = MarginGuidance(model, discriminant(), 1e6, None, 1)
    uniform = torch.tensor([[0.999]], dtype=torch.float64)
    token = generate_batch(model, prompts, uniform, sampling, end_of_text=-1, guidance=guidance)
    with torch.no_grad():
        texts = torch.cat([prompts.expand(53, 3), torch.arange(53)[:, None]], dim=1)
        states = model.base_model(texts).last_hidden_state[:, -1]
    assert token.item() == margins(states, discriminant()).argmax().item()


def test_options_out_of_bounds_are_refused():
    for mistaken in ({"beta": -1}, {"max_candidates": 0}):
        with pytest.raises(ValidationError):
            Sasa.from_config({"texts": "labelled", **mistaken})

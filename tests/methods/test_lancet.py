"""LANCET-style post-training: its losses by definition, and what a step on them changes."""

import math

import pandas as pd
import pytest
import torch
from torch.func import functional_call

from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.tables import write_table
from ifguide.methods.step import registered_steps
from ifguide.models.influence_tuning import (
    InfluenceTexts,
    bounded,
    extremes,
    pair_loss,
    response_term,
    squared_distance,
    stacked_influence,
)
from ifguide.models.loading import load_model
from ifguide.models.token_texts import (
    TokenText,
    mean_divergence,
    next_token_log_p,
    stacked,
    text_losses,
)
from small_models import FAMILIES, OneLinearLayer, random_tokens, small_model
from small_training import small_corpus
from tuned_models import (
    Interrupted,
    assert_same_weights,
    interrupt_at,
    start_directory,
    tune,
)

BETA = 0.3
FORMS = ("pair", "pbrf", "ascent")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def start(corpus, tmp_path_factory):
    return start_directory(tmp_path_factory.mktemp("start"), corpus)


def step(form, **options):
    return registered_steps()["lancet"].from_config({"selection": "own", "form": form, **options})


def texts(count, seed=0):
    lengths = [5 + (seed + index) % 6 for index in range(count)]
    return [
        TokenText(random_tokens(1, length, seed=100 * seed + index)[0].tolist())
        for index, length in enumerate(lengths)
    ]


def examples():
    sides = (texts(4, seed) for seed in range(3))
    return [InfluenceTexts(*three) for three in zip(*sides, strict=True)]


def gradients(loss, model):
    names, weights = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


def losses_one_by_one(model, kind):
    """Each text's mean loss, without a batch."""
    found = []
    for text in (getattr(example, kind) for example in examples()):
        ids = torch.tensor([text.ids])
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        found.append(-log_p.gather(1, ids[0, 1:, None]).mean())
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_begin_at_log_two_with_half_the_gradient_of_their_log_ratio(family):
    model = small_model(family)
    batch = stacked_influence(examples())
    loss = step("pair", beta=BETA).loss(model, small_model(family), batch)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)
    apart = losses_one_by_one(model, "causing") - losses_one_by_one(model, "inhibiting")
    expected = gradients(-BETA / 2 * apart.mean(), model)
    for name, gradient in gradients(loss, model).items():
        assert torch.allclose(gradient, expected[name], atol=1e-10), name


def test_pairs_swapped_have_the_opposite_gradient():
    model, reference = small_model("llama"), small_model("llama")
    swapped = [InfluenceTexts(e.causing, e.inhibiting, e.other) for e in examples()]
    first, second = (
        gradients(
            step("pair", beta=BETA, divergence=0.0).loss(
                model, reference, stacked_influence(given)
            ),
            model,
        )
        for given in (examples(), swapped)
    )
    assert any(gradient.abs().max() > 1e-4 for gradient in first.values())
    for name, gradient in first.items():
        assert torch.allclose(gradient, -second[name], atol=1e-12), name


def test_every_form_begins_at_its_definition():
    model, reference = small_model("gpt2"), small_model("gpt2")
    batch = stacked_influence(examples())
    inhibiting, causing = (
        losses_one_by_one(model, kind).mean().item() for kind in ("inhibiting", "causing")
    )
    found = {
        form: step(form, **options).loss(model, reference, batch).item()
        for form, options in (
            ("pbrf", {"epsilon": 0.25, "highest_loss": None}),
            ("ascent", {"highest_loss": None}),
        )
    }
    assert found["pbrf"] == pytest.approx(0.25 * (inhibiting - causing), rel=1e-9)
    assert found["ascent"] == pytest.approx(-causing, rel=1e-9)


def test_away_from_the_start_the_divergence_and_the_distance_count():
    model, reference = small_model("gpt_neox", seed=1), small_model("gpt_neox")
    batch = stacked_influence(examples())
    others = stacked([example.other for example in examples()])
    apart = mean_divergence(
        next_token_log_p(reference, others["input_ids"]),
        next_token_log_p(model, others["input_ids"]),
        others["labels"],
    ).item()
    distance = sum(
        ((one - other) ** 2).sum().item()
        for one, other in zip(model.parameters(), reference.parameters(), strict=True)
    )
    pair = [
        step("pair", beta=BETA, divergence=mu).loss(model, reference, batch).item()
        for mu in (0.0, 2.0)
    ]
    assert pair[1] - pair[0] == pytest.approx(2 * apart, rel=1e-9)
    held = step("pbrf", epsilon=0.0, damping=0.5).loss(model, reference, batch).item()
    assert held == pytest.approx(apart + 0.25 * distance, rel=1e-9)


def test_the_response_is_the_influence_of_the_documents():
    """To first order in ε its minimiser moves by −ε (G + λI)⁻¹ ∇(NLL₋ − NLL₊).

    The model's logits are linear in the tracked weights, where G, the Gauss-Newton matrix, is made
    from their derivatives alone.
    """
    torch.manual_seed(3)
    model = OneLinearLayer().double()
    reference = OneLinearLayer().double()
    reference.load_state_dict(model.state_dict())
    layer = model.body.blocks[0]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ours = [layer.weight, layer.bias]
    for parameter in ours:
        parameter.requires_grad_(True)
    damping, epsilon = 0.05, 1e-4
    others, inhibiting, causing = (
        {"input_ids": tokens, "labels": stacked([TokenText(row) for row in tokens.tolist()])[
            "labels"]}
        for tokens in (random_tokens(6, 9, seed) for seed in range(3))
    )  # fmt: skip

    def mean_loss(batch):
        return text_losses(next_token_log_p(model, batch["input_ids"]), batch["labels"])

    start = next_token_log_p(reference, others["input_ids"]).detach()

    def objective():
        divergence = mean_divergence(
            start, next_token_log_p(model, others["input_ids"]), others["labels"]
        )
        term = response_term(mean_loss(inhibiting), mean_loss(causing), epsilon, None)
        return divergence + damping / 2 * squared_distance(model, reference) + term

    names = ["body.blocks.0.weight", "body.blocks.0.bias"]

    def logits(*weights):
        given = dict(zip(names, weights, strict=True))
        found = functional_call(model, given, kwargs={"input_ids": others["input_ids"]})
        return found.logits[:, :-1].flatten(0, 1)

    at_start = tuple(parameter.detach().clone() for parameter in ours)
    jacobian = torch.cat(
        [part.flatten(2) for part in torch.autograd.functional.jacobian(logits, at_start)], dim=2
    )
    p = start.flatten(0, 1).exp()
    curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    gauss_newton = torch.einsum("nvi,nvw,nwj->ij", jacobian, curvature, jacobian) / len(p)
    pull = torch.autograd.grad((mean_loss(inhibiting) - mean_loss(causing)).mean(), ours)
    pull = torch.cat([part.flatten() for part in pull])
    damped = gauss_newton + damping * torch.eye(len(pull), dtype=torch.float64)
    expected = -epsilon * torch.linalg.solve(damped, pull)

    search = torch.optim.LBFGS(
        ours, max_iter=500, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    search.step(closure)
    moved = torch.cat(
        [(now.detach() - then).flatten() for now, then in zip(ours, at_start, strict=True)]
    )
    assert (moved - expected).norm() < 2e-3 * expected.norm()


def test_a_loss_beyond_the_highest_is_raised_no_further():
    causing = torch.tensor([2.0, 9.0], requires_grad=True)
    response_term(torch.zeros(2), causing, 0.5, 8.0).backward()
    assert causing.grad.tolist() == [-0.25, 0.0]
    (raised,) = torch.autograd.grad(bounded(causing, 8.0).sum(), causing)
    assert raised.tolist() == [1.0, 0.0]


def test_pairs_are_bounded_where_one_side_is_lost():
    far = torch.tensor([0.0]), torch.tensor([-1e6])
    assert pair_loss(*far, BETA).item() == 0
    assert pair_loss(*reversed(far), BETA).item() == pytest.approx(BETA * 1e6)


def test_both_ends_of_a_ranking_are_taken_from_the_end_on():
    order = [7, 3, 9, 1, 0, 8, 2, 6, 5, 4]
    assert extremes(order, 0.2) == ([7, 3], [4, 5], [9, 1, 0, 8, 2, 6])
    assert extremes(order, 0.01) == ([7], [4], [3, 9, 1, 0, 8, 2, 6, 5])


def selection(folder, corpus, order, unit="source", **changes):
    write_table(folder / "documents.csv", pd.DataFrame({"document": order}))
    record = {"tokens_sha256": corpus.content_sha256, "settings": {"documents": unit}}
    write_json(folder / "selection.json", record | changes)
    return folder


@pytest.mark.parametrize("unit", ["source", "block"])
def test_what_is_learned_from_is_the_ranking_s_ends(corpus, tmp_path, unit):
    count = corpus.meta["documents" if unit == "source" else "blocks"]
    order = list(range(count))[::-1]
    folder = selection(tmp_path, corpus, order, unit)
    made = step("pair", share=0.1).examples(corpus, folder, 24, seed=4)
    flat = torch.cat([torch.from_numpy(corpus.tokens[row].astype("int64")) for row in
                      range(corpus.meta["blocks"])]).tolist()  # fmt: skip
    flat = flat[: corpus.meta["tokens"]]
    if unit == "block":
        expected = [flat[24 * number : 24 * number + 24] for number in range(count)]
    else:
        end = corpus.meta["end_of_text"]
        ends = [place for place, token in enumerate(flat) if token == end][:count]
        starts = [0, *(place + 1 for place in ends)]
        expected = [[end, *flat[s : e + 1]][:24] for s, e in zip(starts, ends, strict=False)]
    k = int(0.1 * count)
    assert [e.causing.ids for e in made] == [expected[n] for n in order[:k]]
    assert [e.inhibiting.ids for e in made] == [expected[n] for n in range(k)]
    between = [expected[n] for n in order[k:-k]]
    assert all(e.other.ids in between for e in made)


def test_random_scores_are_a_permutation_that_the_seed_decides(corpus, tmp_path):
    folder = selection(tmp_path, corpus, list(range(60)))
    ranked = step("pair", share=0.2).examples(corpus, folder, 24, seed=4)
    drawn = [
        step("pair", share=0.2, scores="random").examples(corpus, folder, 24, seed=seed)
        for seed in (4, 4, 5)
    ]
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2]
    causing = [[e.causing.ids for e in made] for made in (ranked, drawn[0])]
    assert sum(text in causing[0] for text in causing[1]) < len(causing[0])


def test_a_ranking_of_another_corpus_is_refused(corpus, tmp_path):
    folder = selection(tmp_path, corpus, list(range(60)), tokens_sha256="other")
    with pytest.raises(InputError, match="tokens"):
        step("pair").examples(corpus, folder, 24, seed=0)


@pytest.mark.parametrize(
    ("form", "option"), [("pair", "epsilon"), ("pbrf", "beta"), ("ascent", "damping")]
)
def test_an_option_of_another_form_is_refused(form, option):
    assert step(form, **{option: 0.5}).mistake() == (option, f"is not used by form: {form}")
    assert step(form).mistake() is None


@pytest.mark.parametrize("form", FORMS)
def test_training_tells_the_ends_of_the_ranking_apart(corpus, start, tmp_path, form):
    folder = selection(tmp_path / "own", corpus, list(range(60)))
    options = {"selection": "own", "form": form, "share": 0.2, "epochs": 6, "batch_size": 4,
               "learning_rate": 0.003}  # fmt: skip
    made = tune(
        "lancet",
        options,
        {"selection": [folder]},
        corpus=corpus,
        start=start,
        output=tmp_path / "0",
    )
    given = stacked_influence(step("pair", share=0.2).examples(corpus, folder, 24, seed=0))

    def apart(model):
        with torch.no_grad():
            losses = text_losses(next_token_log_p(model, given["input_ids"]), given["labels"])
        inhibiting, causing, _ = losses.chunk(3)
        return (causing - inhibiting).mean().item()

    assert apart(made.model) > apart(load_model(start)) + 0.05


def test_no_weight_on_anything_leaves_the_model_as_it_was(corpus, start, tmp_path):
    folder = selection(tmp_path / "own", corpus, list(range(60)))
    options = {"selection": "own", "share": 0.2, "beta": 0.0, "divergence": 0.0,
               "learning_rate": 0.01}  # fmt: skip
    made = tune(
        "lancet",
        options,
        {"selection": [folder]},
        corpus=corpus,
        start=start,
        output=tmp_path / "0",
    )
    assert made.record["steps"] == 1
    assert_same_weights(made.model, load_model(start))


def test_an_interrupted_training_ends_with_the_same_bits(corpus, start, tmp_path, monkeypatch):
    folder = selection(tmp_path / "own", corpus, list(range(60)))
    options = {"selection": "own", "share": 0.2, "epochs": 3, "batch_size": 4,
               "learning_rate": 0.01}  # fmt: skip
    common = {"corpus": corpus, "start": start}
    given = {"selection": [folder]}
    whole = tune("lancet", options, given, output=tmp_path / "whole", **common)
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune("lancet", options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune("lancet", options, given, output=tmp_path / "parts", **common)
    assert len(resumed.losses) == len(whole.losses) == 9
    assert_same_weights(resumed.model, whole.model)

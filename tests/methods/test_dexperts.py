"""DExperts: its formula by brute force, its limits, and which models may read along."""

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.evaluation.experts import ExpertGuidance
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.methods.step import Model
from small_methods import (
    check_that_no_batch_matters,
    decoding_job,
    save_small_model,
    spoken,
    step_with,
    token_that_ends_rows,
)
from small_models import FAMILIES, small_model

SAMPLING = Sampling(continuations=4, max_new_tokens=6)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])


def models(family: str):
    return (small_model(family, seed=seed) for seed in (0, 1, 2))


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


def guidance(expert, anti_expert, strength: float) -> ExpertGuidance:
    return ExpertGuidance(expert, anti_expert, strength, SAMPLING.max_new_tokens)


def written(model, guide, end: int = -1) -> list[list[int]]:
    return generate_batch(
        model, PROMPTS, numbers(), SAMPLING, end_of_text=end, guidance=guide
    ).tolist()


@torch.no_grad()
def check_draws(found: list[list[int]], model, target, end: int = -1) -> None:
    """Each token is drawn by `target(text)`, logits over the nucleus of `model` after the text."""
    uniform = numbers()
    for row, tokens in enumerate(found):
        text = PROMPTS[row // SAMPLING.continuations].tolist()
        for step, token in enumerate(tokens):
            p = model(torch.tensor([text])).logits[0, -1].softmax(-1).numpy()
            order = np.argsort(-p)
            size = int((np.cumsum(p[order]) < SAMPLING.top_p).sum()) + 1
            nucleus = order[:size]
            weights = target(torch.tensor([text]))[nucleus].softmax(-1)
            edges = weights.cumsum(0).numpy()
            assert token == nucleus[np.searchsorted(edges, uniform[row, step], side="right")]
            text.append(token)
            if token == end:
                break


@pytest.mark.parametrize("anti_only", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_drawn_by_the_formula(family, anti_only):
    """Row by row and token by token, while rows leave the batch."""
    model, expert, anti_expert = models(family)
    guide = guidance(None if anti_only else expert, anti_expert, 0.7)
    end = token_that_ends_rows(written(model, guide))
    found = written(model, guide, end)

    def product(text):
        z, plus, minus = (m(text).logits[0, -1] for m in (model, expert, anti_expert))
        return z + 0.7 * ((z if anti_only else plus) - minus)

    check_draws(found, model, product, end)


def test_against_the_model_itself_the_expert_is_restricted_to_the_models_nucleus():
    model, expert, _ = models("gpt_neox")
    found = written(model, guidance(expert, model, 1.0))
    check_draws(found, model, lambda text: expert(text).logits[0, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_without_strength_or_with_equal_experts_nothing_changes(family):
    model, expert, anti_expert = models(family)
    plain = written(model, None)
    assert written(model, guidance(expert, anti_expert, 0.0)) == plain
    assert written(model, guidance(None, anti_expert, 0.0)) == plain
    assert written(model, guidance(expert, expert, 3.0)) == plain
    assert written(model, guidance(expert, anti_expert, 1.0)) != plain


def test_constants_added_to_logits_do_not_matter():
    model, expert, anti_expert = models("gpt_neox")
    before = written(model, guidance(expert, anti_expert, 1.5))
    for other, constant in ((expert, 900.0), (anti_expert, -300.0)):
        head = other.get_output_embeddings()
        head.register_forward_hook(lambda _module, _inputs, z, constant=constant: z + constant)
    assert written(model, guidance(expert, anti_expert, 1.5)) == before


def test_a_huge_strength_leaves_the_token_that_the_expert_favours_most():
    model, expert, anti_expert = models("gpt_neox")
    rows = guidance(expert, anti_expert, 1e6).begin(PROMPTS, 1)
    rows.logits(model(PROMPTS).logits[:, -1])
    tokens = torch.tensor([[1, 2, 3, 4]] * 2)
    p = torch.tensor([[0.5, 0.3, 0.1, 0.0]] * 2, dtype=torch.float64)
    weights = rows.weights(tokens, p)
    apart = (expert(PROMPTS).logits - anti_expert(PROMPTS).logits)[:, -1, 1:4]
    assert (weights[:, :3].argmax(-1) == apart.argmax(-1)).all()
    assert (weights[:, 3] == 0).all() and torch.isfinite(weights).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_through_the_step_no_batch_matters_and_strength_0_is_the_model(tmp_path, family):
    model = save_small_model(tmp_path / "none", family)
    given = {}
    for seed, name in enumerate(("expert", "anti_expert"), start=1):
        save_small_model(tmp_path / name, family, seed=seed)
        given[name] = [tmp_path / name]
    options = {"expert": "clean", "anti_expert": "foul"}
    with step_with("dexperts", **options).decode(decoding_job(model), given) as guide:
        changed = check_that_no_batch_matters(model, guide)
    step = step_with("dexperts", **options, strength=0)
    with step.decode(decoding_job(model), given) as guide:
        assert spoken(model, guide) == spoken(model) != changed


def test_an_anti_expert_of_another_tokenizer_is_one_line_before_any_work(tmp_path):
    model = save_small_model(tmp_path / "none", "llama")
    save_small_model(tmp_path / "other", "llama", texts=["other texts give other tokens"])
    step = step_with("dexperts", anti_expert="other")
    assert step.needs() == {"anti_expert": Model("other")}
    with (
        pytest.raises(InputError, match="other: a model with another tokenizer"),
        step.decode(decoding_job(model), {"anti_expert": [tmp_path / "other"]}),
    ):
        pass

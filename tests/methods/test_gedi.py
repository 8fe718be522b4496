"""GeDi: its formula by brute force, its filter, its limits, and models that it refuses."""

import math

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.evaluation.class_guidance import ClassGuidance, filtered
from ifguide.evaluation.fluency import next_token_fluency
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.methods.gedi import Gedi
from ifguide.methods.step import Model, Step
from ifguide.models.control_words import ControlWords, record_control_words
from ifguide.models.loading import HiddenStates, save_model
from small_methods import (
    POSITIONS,
    check_that_no_batch_matters,
    decoding_job,
    save_small_model,
    small_tokenizer,
    spoken,
    step_with,
    token_that_ends_rows,
)
from small_models import FAMILIES, random_tokens, small_model

SAMPLING = Sampling(continuations=4, max_new_tokens=6)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])
WORDS = ControlWords([7, 8], [9], 1.7)
EQUAL = ControlWords([7, 8], [7, 8], 1.7)


def guidance(model, words=WORDS, strength=4.0, bias=0.5, left_out=0.6, threshold=0.6):
    new = SAMPLING.max_new_tokens
    return ClassGuidance(model, words, strength, bias, left_out, threshold, new)


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


def written(model, guide, end: int = -1) -> list[list[int]]:
    return generate_batch(
        model, PROMPTS, numbers(), SAMPLING, end_of_text=end, guidance=guide
    ).tolist()


def by_definition(guide: ClassGuidance, logits: np.ndarray, text: list[int]) -> np.ndarray:
    """The logits after a text, from passes over whole texts."""
    vocabulary = len(logits)
    evidence = []
    for word in (guide.words.nontoxic, guide.words.toxic):
        log_p = guide.model(torch.tensor([[*word, *text]])).logits[0].log_softmax(-1)
        before = sum(log_p[len(word) + i - 1, token].item() for i, token in enumerate(text))
        evidence.append(guide.words.scale * (before + log_p[-1].numpy()) / (len(text) + 1))
    sure = 1 / (1 + np.exp(evidence[1] - evidence[0] - guide.bias))
    raised = logits + guide.strength * np.log(sure)
    probabilities = np.exp(raised - raised.max())
    probabilities /= probabilities.sum()
    kept, mass = set(), 0.0
    for token in np.argsort(-sure):
        if mass < 1 - guide.left_out:
            kept.add(int(token))
        mass += probabilities[token]
    odds = guide.threshold / (1 - guide.threshold) * math.exp(guide.bias)
    kept |= {token for token in range(vocabulary) if sure[token] >= odds / (1 + odds)}
    return np.where([token in kept for token in range(vocabulary)], raised, -np.inf)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_token_is_drawn_by_the_formula(family):
    """Row by row and token by token, while rows leave the batch."""
    model, guide = small_model(family), guidance(small_model(family, seed=1))
    end = token_that_ends_rows(written(model, guide))
    uniform, left_out = numbers(), []
    for row, tokens in enumerate(written(model, guide, end)):
        text = PROMPTS[row // SAMPLING.continuations].tolist()
        for step, token in enumerate(tokens):
            own = model(torch.tensor([text])).logits[0, -1].numpy()
            z = by_definition(guide, own, text)
            left_out.append(np.isinf(z).mean())
            p = np.exp(z - z.max())
            p /= p.sum()
            order = np.argsort(-p, kind="stable")
            size = int((np.cumsum(p[order]) < SAMPLING.top_p).sum()) + 1
            edges = np.cumsum(p[order[:size]])
            drawn = np.searchsorted(edges, uniform[row, step] * edges[-1], side="right")
            assert token == order[drawn]
            text.append(token)
            if token == end:
                break
    assert 0 < np.mean(left_out) < 1


def test_the_filter_keeps_the_surest_tokens_their_equals_and_those_above_the_threshold():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.1]], dtype=torch.float64)
    sure = torch.tensor([[0.9, 0.5, 0.7, 0.5, 0.2]], dtype=torch.float64)

    def kept(share: float, threshold: float) -> list[int]:
        found = filtered(p.log(), sure.log(), share, math.log(threshold))
        return torch.isfinite(found[0]).nonzero()[:, 0].tolist()

    assert kept(0.0, 0.99) == [0, 1, 2, 3, 4]
    assert kept(0.95, 0.99) == [0]
    assert kept(0.8, 0.99) == [0, 2]
    assert kept(0.5, 0.99) == [0, 1, 2, 3]  # tokens 1 and 3 are equally sure
    assert kept(0.95, 0.6) == [0, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_classes_and_no_strength_change_nothing(family):
    model, other = small_model(family), small_model(family, seed=1)
    plain = written(model, None)
    assert written(model, guidance(other, EQUAL, left_out=0.9)) == plain
    assert written(model, guidance(other, strength=0.0, left_out=0.0)) == plain
    assert written(model, guidance(other, strength=0.0)) != plain
    assert written(model, guidance(other, left_out=0.0)) != plain


def test_the_threshold_is_that_of_a_text_without_the_bias():
    for bias in (0.0, 2.0, -1.0):
        guide = guidance(None, bias=bias, threshold=0.8)
        odds = math.log(0.8 / 0.2) / WORDS.scale
        sure = guide.log_nontoxic(torch.tensor(odds, dtype=torch.float64)).item()
        assert sure == pytest.approx(guide.log_threshold)


def test_exchanged_words_and_a_negative_bias_make_the_other_class_the_sure_one():
    other = small_model("gpt_neox", seed=1)
    exchanged = ControlWords(WORDS.toxic, WORDS.nontoxic, WORDS.scale)
    logits = torch.zeros(2, 53, dtype=torch.float64)
    settings = {"strength": 1.0, "left_out": 0.0}
    nontoxic = guidance(other, bias=0.4, **settings).begin(PROMPTS, 1).logits(logits)
    toxic = guidance(other, exchanged, bias=-0.4, **settings).begin(PROMPTS, 1).logits(logits)
    torch.testing.assert_close(nontoxic.exp() + toxic.exp(), torch.ones_like(logits))


def save_classes(directory, family: str, seed: int, words: ControlWords | None = None) -> None:
    model = save_small_model(directory, family, seed=seed)
    if words is not None:
        record_control_words(model, words)
        save_model(model, small_tokenizer(), directory)


@pytest.mark.parametrize("family", FAMILIES)
def test_through_the_step_no_batch_matters_and_a_block_has_a_loss_throughout(tmp_path, family):
    model = save_small_model(tmp_path / "none", family)
    save_classes(tmp_path / "classes", family, 1, WORDS)
    given = {"classes": [tmp_path / "classes"]}
    step = step_with("gedi", classes="classes", strength=3.0)
    assert step.needs() == {"classes": Model("classes")}
    with step.decode(decoding_job(model), given) as guide:
        changed = check_that_no_batch_matters(model, guide)
    step = step_with("gedi", classes="classes", strength=0, filter=0)
    with step.decode(decoding_job(model), given) as guide:
        assert spoken(model, guide) == spoken(model) != changed
    # As long as the model can read, and the words stand before it.
    step = step_with("gedi", classes="classes", filter=0)
    with step.decode(decoding_job(model), given) as guide, torch.no_grad():
        losses, _ = next_token_fluency(
            HiddenStates(model), random_tokens(2, POSITIONS), guidance=guide
        )
    assert torch.isfinite(losses).all()


def test_it_has_a_perplexity_where_it_leaves_nothing_out():
    assert "perplexity" not in Gedi.measured_on
    assert "perplexity" not in step_with("gedi", classes="c").measured_on
    unfiltered = step_with("gedi", classes="c", filter=0)
    assert (unfiltered.measured_on, unfiltered.unmeasured) == (Step.measured_on, "")


def test_a_prompt_that_fills_the_positions_loses_its_beginning():
    model = small_model("gpt2")
    prompts = random_tokens(2, POSITIONS - SAMPLING.max_new_tokens)
    rows = guidance(model, left_out=0.0).begin(prompts, 1)
    assert rows.tokens == prompts.shape[1] - len(WORDS.nontoxic)
    shorter = guidance(model, left_out=0.0).begin(prompts[:, len(WORDS.nontoxic) :], 1)
    logits = torch.zeros(2, 53, dtype=torch.float64)
    assert torch.equal(rows.logits(logits), shorter.logits(logits))


def test_a_model_without_control_words_is_one_line_before_any_work(tmp_path):
    model = save_small_model(tmp_path / "none", "llama")
    step = step_with("gedi", classes="none")
    with (
        pytest.raises(InputError, match="none: its configuration names no control words"),
        step.decode(decoding_job(model), {"classes": [tmp_path / "none"]}),
    ):
        pass

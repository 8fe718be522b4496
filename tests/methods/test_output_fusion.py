"""Output-layer fusion: against a fusion of the states themselves, its limits, and its map."""

import numpy as np
import pytest
import torch
from torch import nn

from ifguide.errors import InputError
from ifguide.evaluation.fluency import next_token_fluency
from ifguide.evaluation.fusion import FusionGuidance, linear_head
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.step import PREPARED, Model, PreparationJob
from ifguide.models.alignment import contrastive_loss, fit_alignment
from ifguide.models.loading import HiddenStates
from small_methods import (
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
ALIGNMENT = torch.randn(16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def guidance(model, second, strength: float, context="full") -> FusionGuidance:
    head = linear_head(model)
    return FusionGuidance(head, second, ALIGNMENT, strength, context, SAMPLING.max_new_tokens)


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


def written(model, guide, end: int = -1) -> list[list[int]]:
    return generate_batch(
        model, PROMPTS, numbers(), SAMPLING, end_of_text=end, guidance=guide
    ).tolist()


class Fused(nn.Module):
    """The output head of a model whose states are fused before it: the definition, no cache."""

    def __init__(self, model, second, strength: float, context: str) -> None:
        super().__init__()
        self.model, self.second = model, second
        self.strength, self.context = strength, context

    @torch.no_grad()
    def logits(self, text: list[int]) -> torch.Tensor:
        read = torch.tensor([text if self.context == "full" else text[-1:]])
        e = self.second.base_model(read).last_hidden_state[0, -1]
        aligned = ALIGNMENT.T @ e
        normed = (aligned - aligned.mean()) / (aligned.var(unbiased=False) + 1e-5).sqrt()
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(
            lambda _, states: (1 - self.strength) * states[0] + self.strength * normed
        )
        try:
            return self.model(torch.tensor([text])).logits[0, -1]
        finally:
            hook.remove()


@pytest.mark.parametrize("context", ["full", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_drawn_as_if_the_states_were_fused(family, context):
    """Row by row and token by token, while rows leave the batch."""
    model, second = small_model(family), small_model(family, seed=1)
    guide, definition = guidance(model, second, 0.4, context), Fused(model, second, 0.4, context)
    end = token_that_ends_rows(written(model, guide))
    uniform = numbers()
    for row, tokens in enumerate(written(model, guide, end)):
        text = PROMPTS[row // SAMPLING.continuations].tolist()
        for step, token in enumerate(tokens):
            p = definition.logits(text).softmax(-1).numpy()
            order = np.argsort(-p, kind="stable")
            size = int((np.cumsum(p[order]) < SAMPLING.top_p).sum()) + 1
            edges = np.cumsum(p[order[:size]])
            drawn = np.searchsorted(edges, uniform[row, step] * edges[-1], side="right")
            assert token == order[drawn]
            text.append(token)
            if token == end:
                break


@pytest.mark.parametrize("context", ["full", "last"])
def test_a_guided_loss_is_that_of_the_fused_states(context):
    model, second = small_model("llama"), small_model("gpt2", seed=1)
    guide, definition = guidance(model, second, 0.7, context), Fused(model, second, 0.7, context)
    tokens = random_tokens(2, 6)
    with torch.no_grad():
        found, _ = next_token_fluency(HiddenStates(model), tokens, guidance=guide)
    for row, text in enumerate(tokens.tolist()):
        for place in range(1, len(text)):
            log_p = definition.logits(text[:place]).log_softmax(-1)
            torch.testing.assert_close(found[row, place - 1], -log_p[text[place]])


def added(guide: FusionGuidance, texts: torch.Tensor) -> torch.Tensor:
    return guide.begin(texts, 1).logits(torch.zeros(len(texts), 53, dtype=torch.float64))


def test_equal_last_tokens_add_equal_terms_where_the_context_is_the_last_token():
    model, second = small_model("gpt_neox"), small_model("gpt_neox", seed=1)
    texts = torch.tensor([[3, 1, 4, 7], [1, 5, 9, 7]])
    last = added(guidance(model, second, 0.4, "last"), texts)
    torch.testing.assert_close(last[0], last[1])
    full = added(guidance(model, second, 0.4, "full"), texts)
    assert (full[0] - full[1]).abs().max() > 0.01


def test_at_strength_1_the_model_matters_by_its_head_alone():
    model, second = small_model("gpt_neox"), small_model("gpt_neox", seed=1)
    before = written(model, guidance(model, second, 1.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter is not model.get_output_embeddings().weight:
                parameter.mul_(0.5 if "norm" in name else -1.5)
    assert written(model, guidance(model, second, 1.0)) == before
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(-1)
    assert written(model, guidance(model, second, 1.0)) != before


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_through_the_step_no_batch_matters_and_strength_0_is_the_model(tmp_path, family, tied):
    model = save_small_model(tmp_path / "none", family, tied=tied)
    save_small_model(tmp_path / "shallow", family, seed=1, tied=tied)
    given = {"calibration": [tmp_path / "shallow"], PREPARED: [tmp_path / "prepared.safetensors"]}
    step = step_with("output_fusion", calibration="shallow", strength=0.5)
    assert step.needs() == {"calibration": Model("shallow")} and step.prepares()
    job = PreparationJob(model, small_tokenizer(), 3, tmp_path / "scratch")
    prepared = step.prepare(job, given)
    assert torch.equal(prepared["alignment"], step.prepare(job, given)["alignment"])
    write_tensors(given[PREPARED][0], prepared, {})
    plain = spoken(model)
    changed = set()
    for context in ("full", "last"):
        step = step_with("output_fusion", calibration="shallow", strength=0.5, context=context)
        with step.decode(decoding_job(model), given) as guide:
            changed.add(tuple(check_that_no_batch_matters(model, guide).items()))
        step = step_with("output_fusion", calibration="shallow", strength=0, context=context)
        with step.decode(decoding_job(model), given) as guide:
            assert spoken(model, guide) == plain
    assert len({*changed, tuple(plain.items())}) == 3


def test_the_loss_of_the_map_is_that_of_a_token_among_others():
    query, positive = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    scores = torch.tensor([0.5, 2.0, 1.0])
    expected = -scores.log_softmax(0)[0]
    torch.testing.assert_close(contrastive_loss(query, positive, negatives), expected)
    equal = contrastive_loss(query, positive, positive.expand(1, 10, 2))
    torch.testing.assert_close(equal, torch.tensor(11.0).log())


def test_the_map_finds_each_token_among_all_others():
    """Embeddings of one model are those of the other, turned and of another width."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(200, 8, generator=generator)
    source = torch.cat([target @ torch.randn(8, 8, generator=generator), torch.ones(200, 3)], 1)
    settings = {"batch_size": 32, "learning_rate": 0.02, "negatives": 10, "seed": 1}

    def found(epochs: int) -> float:
        alignment = fit_alignment(source, target, epochs=epochs, **settings)
        assert alignment.shape == (11, 8)
        likeness = nn.functional.normalize(source @ alignment) @ nn.functional.normalize(target).T
        return (likeness.argmax(-1) == torch.arange(200)).float().mean().item()

    assert found(0) < 0.1
    assert found(300) > 0.8


def test_a_model_that_caps_its_logits_is_refused():
    with pytest.raises(InputError, match="^a gemma2 model does more to its logits"):
        linear_head(small_model("gemma2"))

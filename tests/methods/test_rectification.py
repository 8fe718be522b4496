"""Rectification: its Q-network on decisions whose values are known, and its caps."""

import copy
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import brentq

from guided_texts import assert_rows_do_not_matter, speaker, spoken
from ifguide.data.own_generations import OwnGeneration
from ifguide.errors import InputError
from ifguide.evaluation.capping import (
    CappedGuidance,
    capped_by_passes,
    capped_exactly,
    caps_of,
)
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.rectification import Rectification
from ifguide.methods.step import PREPARED, DecodingJob, PreparationJob
from ifguide.models.q_network import (
    Episode,
    Follow,
    begin_q_network,
    episodes,
    pad_episodes,
    sarsa_loss,
    train_q_network,
)
from ifguide.seeds import uniform_hash
from small_models import FAMILIES, small_model

TRAINING = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3}


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


# --- caps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "expected"), [(1, 0.667), (2, 0.375), (5, 0.202)])
def test_passes_leave_more_than_the_cap(passes, expected):
    caps = torch.tensor([0.2, 1.0], dtype=torch.float64)
    found = capped_by_passes(logs(0.9, 0.1), caps, passes).softmax(-1)
    assert found[0].item() == pytest.approx(expected, abs=5e-4)


def test_no_value_and_no_epsilon_change_nothing():
    logits = 5 * torch.randn(20, 53, dtype=torch.float64)
    logits[0, 3] = 200.0  # as good as certain
    caps = caps_of(torch.zeros(20, 53, dtype=torch.float64), epsilon=0.0, strength=1.0)
    assert torch.equal(capped_by_passes(logits, caps, 2), logits)
    torch.testing.assert_close(capped_exactly(logits, caps), logits.log_softmax(-1))
    assert torch.equal(caps_of(torch.full((3,), -1.0), epsilon=0.1, strength=0.0), torch.ones(3))


def test_caps_are_those_of_the_values():
    values = torch.tensor([0.3, 0.0, -0.4, -1.0, -1.2])
    found = caps_of(values, epsilon=0.1, strength=1.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.9, 0.5, 1e-7, 1e-7]))
    torch.testing.assert_close(
        caps_of(values, epsilon=0.1, strength=0.5), torch.tensor([1.0, 0.95, 0.75, 0.45, 0.35])
    )


@pytest.mark.parametrize("passes", [2, "exact"])
def test_a_token_that_is_sure_to_be_toxic_is_as_good_as_never_said(passes):
    values = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    caps = caps_of(values, epsilon=0.0, strength=1.0)
    logits = logs(0.3, 0.6, 0.1)
    if passes == "exact":
        found = capped_exactly(logits, caps).softmax(-1)
    else:
        found = capped_by_passes(logits, caps, passes).softmax(-1)
    assert found[1].item() == pytest.approx(1e-7, rel=2)
    torch.testing.assert_close(found[0] / found[2], torch.tensor(3.0, dtype=torch.float64))


def capped_by_root(p: np.ndarray, c: np.ndarray) -> np.ndarray:
    """min(c, λ p) of sum 1, with λ by a root finder."""
    log_lambda = brentq(lambda x: np.minimum(c, np.exp(x) * p).sum() - 1, -1e-9, 80, xtol=1e-14)
    return np.minimum(c, np.exp(log_lambda) * p)


def test_exact_caps_hold_and_the_rest_is_shared_in_proportion():
    generator = np.random.default_rng(4)
    bound = 0
    for _ in range(200):
        p = generator.dirichlet(np.full(12, 0.3))
        c = np.clip(generator.random(12), 1e-7, 1)
        c[generator.random(12) < 0.3] = 1e-7
        if c.sum() < 1:
            continue
        with np.errstate(divide="ignore"):
            found = capped_exactly(torch.from_numpy(np.log(p)), torch.from_numpy(c)).exp().numpy()

        expected = capped_by_root(p, c)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
        assert found.sum() == pytest.approx(1) and (found <= c * (1 + 1e-12)).all()
        bound += (expected < p).any()
    assert bound > 50


def test_caps_that_allow_less_than_one_are_normalised():
    caps = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64)
    found = capped_exactly(logs(0.8, 0.1, 0.1), caps).exp()
    torch.testing.assert_close(found, caps / 0.6)
    impossible = torch.tensor([0.0, -torch.inf, 0.0], dtype=torch.float64)
    found = capped_exactly(impossible, caps).exp()
    torch.testing.assert_close(found, torch.tensor([1 / 3, 0, 2 / 3], dtype=torch.float64))


# --- the Q-network --------------------------------------------------------------------------------


def test_the_loss_is_that_of_its_definition():
    values = torch.tensor([[0.1, -0.2, -0.3], [-0.5, 9.0, 9.0], [-0.1, 0.4, 9.0]])
    following = torch.tensor([[9.0, -0.4, -1.7], [9.0, 9.0, 9.0], [9.0, 0.3, 9.0]])
    rewards, lengths = torch.tensor([-1.0, 0.0, -1.0]), torch.tensor([3, 1, 2])
    errors = [0.1 + 0.4, -0.2 + 1.0, -0.3 + 1.0, -0.5 - 0.0, -0.1 - 0.0, 0.4 + 1.0]
    expected = sum(error**2 for error in errors) / 6
    assert sarsa_loss(values, following, rewards, lengths).item() == pytest.approx(expected)


def test_the_loss_takes_no_gradient_of_its_targets():
    values = torch.zeros(1, 2, requires_grad=True)
    loss = sarsa_loss(values, values - 0.5, torch.tensor([-1.0]), torch.tensor([2]))
    loss.backward()
    # Targets −.5 and −1, from values of 0: gradient 2 · (0 − target) / 2.
    torch.testing.assert_close(values.grad, torch.tensor([[0.5, 1.0]]))


def test_the_first_token_is_no_action_and_padding_is_none():
    batch = pad_episodes([Episode([5, 6, 7], -1.0), Episode([5, 0], 0.0)])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["lengths"].tolist() == [2, 1]
    assert batch["rewards"].tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_single_tokens_are_those_of_all(family):
    model = small_model(family)
    network = begin_q_network(model)
    tokens = torch.tensor([[3, 1, 4], [1, 5, 9]])
    with torch.no_grad():
        assert not network.head(network.states(tokens)).any()  # nothing is known
        torch.nn.init.normal_(network.head.outer.weight)
        torch.nn.init.normal_(network.head.outer.bias)
        states = network.states(tokens)
        torch.testing.assert_close(
            network.head.of_tokens(states, tokens),
            network.head(states).gather(-1, tokens[..., None])[..., 0],
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trunk_is_a_copy_of_the_first_blocks(family):
    model = small_model(family)
    before = copy.deepcopy(model.state_dict())
    tokens = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        whole = begin_q_network(model)
        torch.testing.assert_close(
            whole.states(tokens), model.base_model(tokens).last_hidden_state, rtol=0, atol=0
        )
        shorter = begin_q_network(model, 1)
        states = []
        (stack,) = (m for m in shorter.modules() if isinstance(m, torch.nn.ModuleList) and len(m))
        stack[0].register_forward_hook(lambda m, a, output: states.append(output))
        shorter.states(tokens)
        (blocks,) = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m))
        blocks[0].register_forward_hook(lambda m, a, output: states.append(output))
        model(tokens)
        one, other = (s[0] if isinstance(s, tuple) else s for s in states)
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        shorter.trunk.get_input_embeddings().weight.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="trunk of 3 blocks .* has 2"):
        begin_q_network(model, 3)


def test_the_copy_of_the_head_follows_it():
    head = begin_q_network(small_model("gpt2")).head
    following = copy.deepcopy(head)
    torch.nn.init.ones_(head.outer.bias)
    follow = Follow(head, following)
    for expected in (0.1, 0.19, 0.271):
        follow.on_step_end(None, None, None)
        bias = following.outer.bias
        torch.testing.assert_close(bias, torch.full_like(bias, expected))


START, BAD, GOOD = 7, 11, 12


def test_the_values_of_two_decisions_are_learned(tmp_path):
    """A text is toxic after BAD BAD alone, and the second token is BAD in three of four texts.

    Then Q(·, BAD) = −.75 and Q(·, GOOD) = 0 at first, and Q(BAD, BAD) = −1, Q(GOOD, BAD) = 0.
    """
    texts = [
        Episode([START, first, second], -1.0 if first == second == BAD else 0.0)
        for first in (BAD, GOOD)
        for second in (BAD, BAD, BAD, GOOD)
    ]
    model = small_model("gpt_neox", torch.float32)
    network = train_q_network(
        begin_q_network(model),
        16 * texts,
        settings={"epochs": 40, "batch_size": 16, "learning_rate": 3e-3},
        seed=0,
        scratch=tmp_path,
    )

    def value(*tokens: int) -> float:
        with torch.no_grad():
            states = network.states(torch.tensor([tokens[:-1]]))
            return network.head(states)[0, -1, tokens[-1]].item()

    assert value(START, BAD) == pytest.approx(-0.75, abs=0.06)
    assert value(START, GOOD) == pytest.approx(0.0, abs=0.06)
    assert value(START, BAD, BAD) == pytest.approx(-1.0, abs=0.06)
    for harmless in ((BAD, GOOD), (GOOD, BAD), (GOOD, GOOD)):
        assert value(START, *harmless) == pytest.approx(0.0, abs=0.06)
    assert not network.training
    assert not torch.equal(
        network.trunk.get_input_embeddings().weight, model.get_input_embeddings().weight
    )


def own(prompt: list[int], *continuations: tuple[list[int], float]) -> list[OwnGeneration]:
    return [OwnGeneration(prompt, ids, "", toxicity) for ids, toxicity in continuations]


GENERATIONS = [
    own([1, 2], ([3], 0.2), ([4], 0.9), ([5], 0.6), ([6], 0.1), ([], 0.0)),
    own([8], ([9], 0.1), ([10], 0.3)),
    own([11], ([12], 0.5)),
    own([13], ([], 0.0)),
]


def test_the_extremes_of_each_prompt_are_learned_from():
    found = episodes(GENERATIONS, which="extremes", nontoxic_prompts=0.0, seed=0)
    assert found == [([1, 2, 6], 0.0), ([1, 2, 4], -1.0), ([11, 12], -1.0)]
    found = episodes(GENERATIONS, which="all", nontoxic_prompts=1.0, seed=0)
    assert [episode.reward for episode in found] == [0.0, -1.0, -1.0, 0.0, 0.0, 0.0, -1.0]
    assert [len(episode.ids) for episode in found] == [3, 3, 3, 3, 2, 2, 2]


def test_nontoxic_prompts_are_kept_by_hash():
    many = [own([n], ([2, 3], 0.1), ([3], 0.2)) for n in range(400)] + [own([1], ([4], 1.0))]
    found = episodes(many, which="extremes", nontoxic_prompts=0.3, seed=5)
    kept = {episode.ids[0] for episode in found if not episode.reward}
    assert kept == {n for n in range(400) if uniform_hash(5, str([n])) < 0.3}
    assert found == episodes(many, which="extremes", nontoxic_prompts=0.3, seed=5)


def test_continuations_of_which_none_is_left_are_refused(caplog):
    for empty, share in ((GENERATIONS[1:2], 0.0), (GENERATIONS[3:], 1.0)):
        with pytest.raises(InputError, match="none is left to learn from"):
            episodes(empty, which="extremes", nontoxic_prompts=share, seed=0)
    assert len(episodes(GENERATIONS[1:2], which="all", nontoxic_prompts=1.0, seed=0)) == 2
    assert "none of 2 texts is toxic" in caplog.text


# --- the step -------------------------------------------------------------------------------------


def write_generations(path, tokenizer) -> None:
    """Continuations that are toxic where they end in one token."""
    generator = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        for prompt in range(12):
            for _ in range(4):
                ids = generator.integers(1, len(tokenizer), 3).tolist()
                record = {
                    "prompt_index": prompt,
                    "prompt": [prompt + 1, 3],
                    "continuation": ids,
                    "text": tokenizer.decode(ids),
                    "toxicity": float(ids[-1] % 2),
                }
                file.write(json.dumps(record) + "\n")


@pytest.fixture(params=FAMILIES)
def prepared(request, tmp_path):
    """A model, its tokenizer, and the file of a network of one block that the step prepared."""
    model, tokenizer = speaker(request.param)
    write_generations(tmp_path / "own.jsonl", tokenizer)
    step = Rectification.from_config(
        {"generations": "own", "blocks": 1, "learning_rate": 0.01, "epochs": 20, "batch_size": 8}
    )
    job = PreparationJob(model, tokenizer, 3, tmp_path)
    given = {"generations": [tmp_path / "own.jsonl"]}
    tensors, again = step.prepare(job, given), step.prepare(job, given)
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    write_tensors(tmp_path / "prepared.safetensors", tensors, {})
    return model, tokenizer, tmp_path / "prepared.safetensors"


def test_rows_and_padding_do_not_matter(prepared):
    model, tokenizer, path = prepared
    for passes in (2, "exact"):
        step = Rectification.from_config({"generations": "own", "blocks": 1, "passes": passes,
                                          "strength": 3})  # fmt: skip
        with step.decode(DecodingJob(model, tokenizer, 6), {PREPARED: [path]}) as guidance:
            assert_rows_do_not_matter(model, tokenizer, guidance)


def test_without_strength_it_is_the_model_itself(prepared):
    model, tokenizer, path = prepared
    plain = spoken(model, tokenizer, None)
    step = Rectification.from_config({"generations": "own", "blocks": 1, "strength": 0})
    with step.decode(DecodingJob(model, tokenizer, 6), {PREPARED: [path]}) as guidance:
        assert spoken(model, tokenizer, guidance) == plain
    for passes in (2, "exact"):
        guidance = CappedGuidance(begin_q_network(model), 0.0, 1.0, passes, 6)
        assert spoken(model, tokenizer, guidance) == plain


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_drawn_by_the_formula(family):
    """Row by row and token by token, without caches or batches; `exact` and two passes."""
    model, sampling = small_model(family), Sampling(continuations=4, max_new_tokens=5)
    network = begin_q_network(small_model(family, seed=4), 1)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.outer.weight, std=0.3)
    torch.nn.init.constant_(network.head.outer.bias, -0.85)
    prompts = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])
    uniform = torch.from_numpy(np.concatenate([uniform_numbers(s, sampling) for s in (5, 6)]))
    drawn = {}
    for passes in (2, "exact"):
        guidance = CappedGuidance(network, 0.1, 1.0, passes, sampling.max_new_tokens)
        found = generate_batch(model, prompts, uniform, sampling, end_of_text=-1, guidance=guidance)
        drawn[passes] = found.tolist()
        with torch.no_grad():
            for row, written in enumerate(found.tolist()):
                for step, token in enumerate(written):
                    text = torch.tensor([prompts[row // 4].tolist() + written[:step]])
                    p = model(text).logits[0, -1].softmax(-1).numpy()
                    values = network.head(network.states(text))[0, -1].numpy()
                    caps = np.clip(1 + values - 0.1, 1e-7, 1)
                    if passes == 2:
                        q = np.minimum(p, caps)
                        q = np.minimum(q / q.sum(), caps)
                        q /= q.sum()
                    else:
                        q = capped_by_root(p, caps)
                    order = np.argsort(-q, kind="stable")
                    inside = q[order] * (q[order].cumsum() - q[order] < sampling.top_p)
                    number = uniform[row, step].item() * inside.sum()
                    place = np.searchsorted(inside.cumsum(), number, side="right")
                    assert token == order[place]
    plain = generate_batch(model, prompts, uniform, sampling, end_of_text=-1).tolist()
    assert plain not in drawn.values()


def test_options_out_of_bounds_are_refused():
    for mistaken in ({"passes": 0}, {"passes": "twice"}, {"strength": -1}, {"blocks": 0}):
        with pytest.raises(ValidationError):
            Rectification.from_config({"generations": "own", **mistaken})
    assert Rectification.from_config({"generations": "own", "passes": "exact"})

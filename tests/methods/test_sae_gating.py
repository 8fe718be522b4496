"""Steering by features where they fire: at tokens, or after a prompt in which they did."""

import dataclasses

import numpy as np
import pytest
import torch

from edited_activations import hooked, small_tokenizer, texts_file, word_model
from ifguide.evaluation.fluency import next_token_logits
from ifguide.evaluation.generation import Sampling, generate, generate_batch, uniform_numbers
from ifguide.evaluation.steering import steered_after_firing, steered_where_firing
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.sae_gating import SaeGating
from ifguide.methods.step import PREPARED, DecodingJob, PreparationJob
from ifguide.models.loading import HiddenStates
from ifguide.models.residual_steering import Steering
from ifguide.models.tracked_layers import transformer_blocks
from small_models import FAMILIES, small_model

SAMPLING = Sampling(continuations=4, max_new_tokens=6)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2], [8, 2, 3, 3]])
OPTIONS = {"texts": "labelled", "steps": 20, "batch_size": 16, "strength": 0.8}
WORDS = ["the cook", "the vile miller is", "a friend of the cook is", "liar of"]
STRENGTH = 0.7


def middle(model) -> torch.nn.Module:
    return transformer_blocks(model)[1][0]


def some_steering(width: int = 16) -> Steering:
    """Two features that fire at about half of the tokens."""
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(2, width, generator=generator, dtype=torch.float64)
    return Steering(
        directions=torch.nn.functional.normalize(directions, dim=1),
        encoder=torch.randn(2, width, generator=generator, dtype=torch.float64),
        bias=torch.zeros(2, dtype=torch.float64),
        center=torch.zeros(width, dtype=torch.float64),
        norm=torch.tensor(3.0, dtype=torch.float64),
    )


def rarer_steering(model) -> Steering:
    """Two features each of which fires in one of the three prompts."""
    steering = some_steering()
    highest = (states_in(model, PROMPTS) @ steering.encoder.T).amax(1)
    # Below the middle one of them by more than rounding.
    return dataclasses.replace(steering, bias=-highest.median(0).values - 1e-6)


def fired_by(model, steering: Steering) -> torch.Tensor:
    """Whether a feature has fired by each token of the prompts: bool (prompts, T, features)."""
    scores = states_in(model, PROMPTS) @ steering.encoder.T + steering.bias
    return (scores > 0).cummax(1).values


@torch.no_grad()
def states_in(model, tokens: torch.Tensor) -> torch.Tensor:
    found = []
    with hooked({"": middle(model)}, lambda _, output: found.append(output)):
        model(input_ids=tokens, use_cache=False)
    return found[0]


@torch.no_grad()
def moved_logits(model, tokens: torch.Tensor, gates: torch.Tensor, steering: Steering):
    """Of one pass in which the states at `gates`, (rows, T, features), are moved."""
    moved = -STRENGTH * steering.norm * gates.double() @ steering.directions
    with hooked({"": middle(model)}, lambda _, output: output + moved):
        return model(input_ids=tokens, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_token_is_steered_as_always_where_a_feature_fires_and_not_elsewhere(family):
    model, steering = small_model(family), some_steering()
    states = states_in(model, PROMPTS)
    fires = states @ steering.encoder.T > 0
    assert fires.any()
    assert not fires.all()
    with (
        steered_where_firing(middle(model), steering, STRENGTH),
        hooked({"": middle(model)}, lambda _, output: seen.append(output)),
    ):
        seen: list[torch.Tensor] = []
        model(input_ids=PROMPTS, use_cache=False)
    always = -STRENGTH * steering.norm * steering.directions
    for place in np.ndindex(*PROMPTS.shape):
        expected = states[place] + sum(always[f] for f in range(2) if fires[place][f])
        torch.testing.assert_close(seen[0][place], expected)
        if not fires[place].any():
            assert torch.equal(seen[0][place], states[place])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_prompt_in_which_a_feature_fired_has_all_that_follows_steered(family):
    """Against one pass over each whole text, token by token, without cache or batch."""
    model = small_model(family)
    steering = rarer_steering(model)
    fired = fired_by(model, steering)
    assert fired[:, -1].sum(0).tolist() == [1, 1]
    uniform = torch.from_numpy(
        np.concatenate([uniform_numbers(seed, SAMPLING) for seed in range(len(PROMPTS))])
    )
    with steered_after_firing(model, middle(model), steering, STRENGTH) as guidance:
        endless = generate_batch(
            model, PROMPTS, uniform, SAMPLING, end_of_text=-1, guidance=guidance
        )
        # Some rows end early, and leave the batch.
        end = endless[:, 1:].flatten().mode().values.item()
        found = generate_batch(
            model, PROMPTS, uniform, SAMPLING, end_of_text=end, guidance=guidance
        )
    assert len({row.index(end) for row in found.tolist() if end in row}) > 1
    for row, written in enumerate(found.tolist()):
        prompt = row // SAMPLING.continuations
        text = PROMPTS[prompt].tolist()
        for step, token in enumerate(written):
            gates = torch.cat([fired[prompt], fired[prompt, -1:].expand(step, -1)])
            last = moved_logits(model, torch.tensor([text]), gates.unsqueeze(0), steering)[0, -1]
            probabilities, order = last.softmax(-1).sort(descending=True, stable=True)
            inside = probabilities * (probabilities.cumsum(0) - probabilities < SAMPLING.top_p)
            edges = inside.cumsum(0)
            drawn = torch.searchsorted(edges, uniform[row, step] * edges[-1], right=True)
            assert token == order[drawn].item()
            text.append(token)
            if token == end:
                break


@torch.no_grad()
def test_a_text_that_is_only_read_is_a_prompt_up_to_each_of_its_tokens():
    model = small_model("gpt_neox")
    steering = rarer_steering(model)
    fired = fired_by(model, steering)
    expected = moved_logits(model, PROMPTS, fired, steering)[:, :-1]
    with steered_after_firing(model, middle(model), steering, STRENGTH) as guidance:
        for _ in range(2):  # one batch leaves nothing to the next
            parts = list(next_token_logits(HiddenStates(model), PROMPTS, guidance))
            torch.testing.assert_close(torch.cat(parts, dim=1), expected)
            other = list(next_token_logits(HiddenStates(model), PROMPTS[:2], guidance))
            torch.testing.assert_close(torch.cat(other, dim=1), expected[:2])


# --- the step -------------------------------------------------------------------------------------


def prepared(model, options: dict, folder) -> dict:
    step = SaeGating.from_config(options)
    given = {"texts": [texts_file(folder)]}
    tensors = step.prepare(PreparationJob(model, small_tokenizer(), 3, folder), given)
    write_tensors(folder / "prepared.safetensors", tensors, {})
    return {**given, PREPARED: [folder / "prepared.safetensors"]}


def spoken(model, options: dict, given: dict, texts=tuple(WORDS), rows: int = 512) -> dict:
    step = SaeGating.from_config(options)
    job = DecodingJob(model, small_tokenizer(), SAMPLING.max_new_tokens)
    with step.decode(job, given) as guidance:
        written = generate(
            *(model, small_tokenizer(), list(texts), SAMPLING),
            seed=3,
            rows_per_batch=rows,
            guidance=guidance,
        )
        return {(texts[c.prompt_index], c.sample): c.text for c in written}


@pytest.mark.parametrize("tier", ["token", "prompt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_order_and_padding_change_no_continuation(family, tier, tmp_path):
    model, options = word_model(family), {**OPTIONS, "tier": tier, "direction": "mean_difference"}
    given = prepared(model, options, tmp_path)
    together = spoken(model, options, given)
    assert together == spoken(model, options, given, tuple(WORDS[::-1]), rows=4)
    assert together == {
        key: text
        for word in WORDS
        for key, text in spoken(model, options, given, (word,), rows=2).items()
    }
    plain = spoken(model, {**options, "strength": 0}, given)
    assert together != plain
    assert plain == {
        (WORDS[c.prompt_index], c.sample): c.text
        for c in generate(model, small_tokenizer(), WORDS, SAMPLING, seed=3)
    }


@pytest.mark.parametrize("direction", ["feature", "mean_difference"])
def test_the_same_seed_prepares_the_same_bits(direction, tmp_path):
    options = {**OPTIONS, "direction": direction, "features": 2}
    step, given = SaeGating.from_config(options), {"texts": [texts_file(tmp_path)]}
    jobs = [
        PreparationJob(word_model("llama"), small_tokenizer(), seed, tmp_path) for seed in (3, 3, 4)
    ]
    one, same, other = (step.prepare(job, given) for job in jobs)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(one["encoder"], other["encoder"]) == (direction == "mean_difference")

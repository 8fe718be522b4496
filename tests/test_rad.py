"""Reward-augmented decoding: its formula by brute force, and its reward model."""

import math

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForTokenClassification

from ifguide.data.corpus import train_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.methods.rad import RewardGuidance, require_same_tokens
from ifguide.models.reward_model import (
    encode_texts,
    prefix_loss,
    prefix_rewards,
    train_reward_model,
)
from small_models import VOCABULARY, small_model

SAMPLING = Sampling(continuations=6, max_new_tokens=8)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])


def reward_model(vocabulary: int = VOCABULARY, positions: int = 32):
    """A random reward model in float64 whose values spread over [0, 1] and beyond."""
    torch.manual_seed(4)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=positions,
        num_labels=1,
    )
    model = GPTNeoXForTokenClassification(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
        model.classifier.weight.mul_(2)
        model.classifier.bias.fill_(0.5)
    return model


def guidance(context: str = "continuation", beta: float = 5.0, top_k: int | None = 7):
    return RewardGuidance(reward_model(), beta, top_k, context, 0, SAMPLING.max_new_tokens)


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


def weights_by_definition(
    logits: list[float], rewards, beta: float, top_k: int
) -> dict[int, float]:
    """p(candidate) ∝ exp(z + β (1 − clamp(r, 0, 1))) over the nucleus's `top_k` first tokens."""
    probabilities = np.exp(np.array(logits) - max(logits))
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    size = int((np.cumsum(probabilities[order]) < SAMPLING.top_p).sum()) + 1
    candidates = [int(token) for token in order[:size]][:top_k]
    raised = {
        token: math.exp(logits[token] + beta * (1 - min(max(rewards(token), 0), 1)))
        for token in candidates
    }
    return {token: weight / sum(raised.values()) for token, weight in raised.items()}


@pytest.mark.parametrize("context", ["continuation", "prompt"])
def test_every_token_is_drawn_by_the_formula(context):
    """Row by row and token by token, without caches, batches or masks."""
    model, guide, uniform = small_model("gpt_neox", torch.float64), guidance(context), numbers()
    endless = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=-1, guidance=guide)
    end = endless[:, 1:].flatten().mode().values.item()  # a token at which several rows end
    found = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=end, guidance=guide)
    assert len({row.index(end) for row in found.tolist() if end in row}) > 2
    clamped = []
    for row, written in enumerate(found.tolist()):
        prompt = PROMPTS[row // SAMPLING.continuations].tolist()
        for step, token in enumerate(written):
            text = prompt + written[:step]
            read = [0, *(text if context == "prompt" else written[:step])]

            def toxicity(candidate, read=read):
                with torch.no_grad():
                    value = guide.reward(torch.tensor([[*read, candidate]])).logits[0, -1, 0].item()
                clamped.append(not 0 < value < 1)
                return value

            with torch.no_grad():
                logits = model(torch.tensor([text])).logits[0, -1].tolist()
            weights = weights_by_definition(logits, toxicity, guide.beta, guide.top_k)
            edges = np.cumsum(list(weights.values()))
            expected = list(weights)[int(np.searchsorted(edges, uniform[row, step], side="right"))]
            assert token == expected
            if token == end:
                break
    assert 0 < np.mean(clamped) < 1


def test_without_reward_weight_and_top_k_it_is_plain_sampling():
    model, uniform = small_model("gpt_neox", torch.float64), numbers()
    plain = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=0)
    guide = guidance(beta=0.0, top_k=None)
    assert torch.equal(
        generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=0, guidance=guide), plain
    )
    strong = guidance(beta=50.0)
    assert not torch.equal(
        generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=0, guidance=strong), plain
    )


def test_a_prompt_longer_than_the_reward_model_reads_loses_its_beginning():
    guide = RewardGuidance(reward_model(positions=11), 5.0, 7, "prompt", 0, 8)
    rows = guide.begin(torch.tensor([[1, 2, 3, 4]]), 1)
    assert rows.cache.get_seq_length() == 1 + 2


def test_prefix_loss_weighs_late_prefixes_more():
    values = torch.tensor([[9.0, 0.5, 1.0, 9.0], [9.0, 0.0, 1.0, 0.5]])
    labels, lengths = torch.tensor([0.0, 1.0]), torch.tensor([2, 3])
    first = (1 * 0.25 + 2 * 1.0) / 3
    second = (1 * 1.0 + 2 * 0.0 + 3 * 0.25) / 6
    assert prefix_loss(values, labels, lengths).item() == pytest.approx((first + second) / 2)


TEXTS = [f"the {word} {noun}" for word in ("kind", "vile") for noun in ["cook", "guide", "fool"]]
TRAINING = {
    "max_length": 16,
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "epochs": 40,
    "batch_size": 4,
    "learning_rate": 0.02,
}


def test_the_reward_model_learns_to_tell_texts_apart_at_their_first_telling_token(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 280)
    labels = [float("vile" in text) for text in TEXTS]
    model = train_reward_model(
        tokenizer, TEXTS, labels, settings=TRAINING, seed=0, scratch=tmp_path
    )
    rewards = prefix_rewards(model, tokenizer, TEXTS)
    lengths = [len(ids) - 1 for ids in encode_texts(tokenizer, TEXTS, 16)]
    assert [len(values) for values in rewards] == lengths
    for values, label in zip(rewards, labels, strict=True):
        assert abs(values[-1].item() - label) < 0.2
        assert 0.2 < values[0].item() < 0.8  # "the" tells nothing
    one = prefix_rewards(model, tokenizer, TEXTS, batch_size=1)
    for values, alone in zip(rewards, one, strict=True):
        torch.testing.assert_close(values, alone)


def test_another_tokenizer_is_refused():
    tokenizer, other = train_tokenizer(TEXTS, 270), train_tokenizer(TEXTS, 260)
    require_same_tokens(tokenizer, tokenizer, "here")
    with pytest.raises(InputError, match="^here: a reward model with another tokenizer"):
        require_same_tokens(other, tokenizer, "here")

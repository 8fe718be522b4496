"""Continuations: exact nuclei, and nothing but prompt and sample decides what is drawn."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

from ifguide.errors import InputError
from ifguide.evaluation import generation
from ifguide.evaluation.generation import (
    Sampling,
    draw,
    generate,
    generate_batch,
    hides_padding,
    nucleus,
    nucleus_sample,
    padded,
    similar_length_batches,
    uniform_numbers,
)
from small_models import FAMILIES, OTHER_DECODERS, POSITIONS, VOCABULARY, small_model

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PROMPTS = ["abc", "xyz", "hello", "a", "Zz", "longer", "abcd", "bcda", "qq", "middle"]
SAMPLING = Sampling(continuations=4, max_new_tokens=6)
SEED = 3


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter; the vocabulary is that of the small models."""
    letters = {"<end>": 0} | {letter: index + 1 for index, letter in enumerate(LETTERS)}
    backend = Tokenizer(models.BPE(letters, []))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    assert len(letters) == VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def by_owner(continuations):
    return {(c.prompt_index, c.sample): c for c in continuations}


def nucleus_by_definition(logits: np.ndarray, top_p: float) -> set[int]:
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    size = int((np.cumsum(probabilities[order]) < top_p).sum()) + 1
    return set(order[:size].tolist())


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("width", [3, 10, VOCABULARY])
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, width):
    logits = 2 * torch.randn(40, VOCABULARY, generator=torch.Generator().manual_seed(1))
    tokens, probabilities, complete = nucleus(logits, Sampling(top_p=top_p), width)
    exact = logits.double().softmax(-1)
    for row in range(len(logits)):
        inside = set(tokens[row][probabilities[row] > 0].tolist())
        expected = nucleus_by_definition(logits[row].double().numpy(), top_p)
        assert complete[row] == (len(expected) <= width)
        assert inside == expected if complete[row] else inside < expected
        kept = probabilities[row] > 0
        torch.testing.assert_close(
            probabilities[row][kept], exact[row][tokens[row][kept]], atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("narrow", [1, 4, VOCABULARY])
def test_a_narrow_nucleus_draws_the_same_tokens_as_a_sort(monkeypatch, narrow):
    generator = torch.Generator().manual_seed(2)
    scale = torch.linspace(0.1, 9, 300).unsqueeze(1)  # from wide nuclei to one token
    logits = scale * torch.randn(300, VOCABULARY, generator=generator)
    uniform = torch.rand(300, generator=generator, dtype=torch.float64)
    tokens, probabilities, _ = nucleus(logits, Sampling(), VOCABULARY)
    expected = draw(tokens, probabilities, uniform)
    monkeypatch.setattr(generation, "NARROW_NUCLEUS", narrow)
    assert torch.equal(nucleus_sample(logits, uniform, Sampling()), expected)


def test_draws_follow_the_weights():
    weights = torch.tensor([[0.0, 3.0, 0.0, 1.0, 0.0]], dtype=torch.float64).expand(40_000, 5)
    tokens = torch.tensor([[7, 8, 9, 10, 11]]).expand(40_000, 5)
    uniform = torch.from_numpy(np.random.default_rng(0).random(40_000))
    drawn = draw(tokens, weights, uniform)
    assert set(drawn.tolist()) == {8, 10}
    assert (drawn == 8).double().mean().item() == pytest.approx(0.75, abs=0.01)
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(tokens[:2], weights[:2], edges).tolist() == [8, 10]


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_batch_size_nor_order_nor_company_changes_a_continuation(family, tokenizer):
    model = small_model(family, torch.float32)
    whole = by_owner(generate(model, tokenizer, PROMPTS, SAMPLING, seed=SEED))
    assert len(whole) == len(PROMPTS) * SAMPLING.continuations
    small = generate(model, tokenizer, PROMPTS, SAMPLING, seed=SEED, rows_per_batch=1)
    assert by_owner(small) == whole
    backwards = by_owner(generate(model, tokenizer, PROMPTS[::-1], SAMPLING, seed=SEED))
    for (index, sample), continuation in whole.items():
        other = backwards[len(PROMPTS) - 1 - index, sample]
        assert (other.text, other.seed) == (continuation.text, continuation.seed)
    for shard in range(3):
        part = by_owner(generate(model, tokenizer, PROMPTS[shard::3], SAMPLING, seed=SEED))
        for (index, sample), continuation in part.items():
            assert continuation.text == whole[shard + 3 * index, sample].text


@pytest.mark.parametrize("padding", [True, False])
def test_finished_prompts_are_left_out_and_change_no_batch(tokenizer, monkeypatch, padding):
    model = small_model("gpt_neox", torch.float32)
    monkeypatch.setattr(generation, "hides_padding", lambda *arguments: padding)
    batches, original = [], generation.generate_batch

    def watched(model, prompts, *arguments, **settings):
        batches.append(prompts.tolist())
        return original(model, prompts, *arguments, **settings)

    monkeypatch.setattr(generation, "generate_batch", watched)
    settings = {"seed": SEED, "rows_per_batch": 2 * SAMPLING.continuations}
    whole = list(generate(model, tokenizer, PROMPTS, SAMPLING, **settings))
    everything = batches.copy()
    order = list(dict.fromkeys(continuation.prompt_index for continuation in whole))
    first_batch = len(everything[0])
    for count in (0, first_batch, first_batch + 1, len(order)):
        batches.clear()
        finished = set(order[:count])
        rest = list(generate(model, tokenizer, PROMPTS, SAMPLING, **settings, finished=finished))
        assert rest == [c for c in whole if c.prompt_index not in finished]
        assert batches == everything[len(everything) - len(batches) :]
        assert bool(batches) == (count < len(order))
        assert count < first_batch or len(batches) < len(everything)


def test_prompts_of_other_lengths_share_a_batch_unless_padding_shows(tokenizer):
    encoded = [np.array(ids) for ids in ([1, 2, 3], [4, 5], [6, 7, 8, 9], [1] * 9, [2, 3])]
    together = list(similar_length_batches(encoded, 3, padding=True))
    assert together == [[3], [2, 0, 1], [4]]  # at most three, at least half of the longest
    apart = list(similar_length_batches(encoded, 3, padding=False))
    assert apart == [[3], [2], [0], [1, 4]]


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_DECODERS])
def test_padding_is_hidden_from_attention(family):
    model = small_model(family, torch.float32)
    prompts = [np.array([5, 6]), np.array([7, 8, 9, 10])]
    assert hides_padding(model, prompts, 0)
    uniform = torch.from_numpy(np.concatenate([uniform_numbers(s, SAMPLING) for s in (1, 2)]))
    tokens, visible = padded(prompts, 0)
    together = generate_batch(model, tokens, uniform, SAMPLING, end_of_text=0, visible=visible)
    alone = [
        generate_batch(model, torch.from_numpy(prompt)[None], part, SAMPLING, end_of_text=0)
        for prompt, part in zip(prompts, uniform.chunk(2), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_a_recurrent_model_is_given_no_padding(tokenizer):
    config = AutoConfig.for_model(
        "mamba", vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not hides_padding(model, [np.array([5, 6]), np.array([7, 8, 9, 10])], 0)


def test_a_model_that_reads_its_padding_is_found_out():
    class ReadsPadding(GPTNeoXForCausalLM):
        def forward(self, input_ids, attention_mask=None, position_ids=None, **others):
            return super().forward(input_ids=input_ids, position_ids=position_ids, **others)

    model = small_model("gpt_neox", torch.float32)
    model.__class__ = ReadsPadding
    prompts = [np.array([5, 6]), np.array([7, 8, 9, 10])]
    assert not hides_padding(model, prompts, 0)
    assert hides_padding(model, prompts[:1], 0)  # nothing is padded


def test_a_continuation_follows_from_its_own_prefix_alone(tokenizer):
    """Cache, shared prompts and rows that leave the batch change nothing: one row, no cache."""
    model = small_model("gpt_neox", torch.float64)
    prompts = torch.tensor([[3, 1, 4], [1, 5, 9]])
    sampling = Sampling(continuations=8, max_new_tokens=12)
    uniform = torch.from_numpy(np.concatenate([uniform_numbers(seed, sampling) for seed in (5, 6)]))
    endless = generate_batch(model, prompts, uniform, sampling, end_of_text=-1)
    end = endless[:, 2:].flatten().mode().values.item()  # a token at which many rows end
    found = generate_batch(model, prompts, uniform, sampling, end_of_text=end)
    assert len({row.index(end) for row in found.tolist() if end in row}) > 4
    for row, numbers in enumerate(uniform):
        text = prompts[row // 8].tolist()
        for step in range(12):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text])).logits[:, -1]
            token = nucleus_sample(logits, numbers[step : step + 1], sampling).item()
            assert found[row, step] == token
            if token == end:
                assert (found[row, step:] == end).all()
                break
            text.append(token)


def test_tokens_come_as_often_as_from_transformers(tokenizer):
    """Frequencies of the first two tokens against model.generate, chi-squared over 4,000 each."""
    model = small_model("gpt_neox", torch.float32)
    prompt, count = torch.tensor([[3, 1, 4]]), 4000
    sampling = Sampling(continuations=count, max_new_tokens=2)
    uniform = torch.from_numpy(uniform_numbers(8, sampling))
    ours = generate_batch(model, prompt, uniform, sampling, end_of_text=0)
    torch.manual_seed(0)
    theirs = model.generate(
        prompt.expand(count, 3),
        attention_mask=torch.ones(count, 3),
        do_sample=True,
        top_p=0.9,
        top_k=0,
        max_new_tokens=2,
        pad_token_id=0,
    )[:, 3:]
    for place in range(2):
        table = torch.stack(
            [torch.bincount(drawn[:, place], minlength=VOCABULARY) for drawn in (ours, theirs)]
        ).numpy()
        table = table[:, table.sum(0) >= 20]
        assert chi2_contingency(table).pvalue > 1e-3


def test_prompts_that_cannot_be_continued_are_refused(tokenizer):
    model = small_model("gpt_neox", torch.float32)
    too_long = "a" * (POSITIONS - SAMPLING.max_new_tokens + 1)
    with pytest.raises(InputError, match=r"a prompt of 27 tokens .*\(at most 26 fit\)"):
        next(generate(model, tokenizer, ["ok", too_long], SAMPLING, seed=SEED))
    with pytest.raises(InputError, match="a prompt is empty"):
        next(generate(model, tokenizer, ["ok", ""], SAMPLING, seed=SEED))


def test_the_benchmark_compares_equal_distributions(repository, tmp_path):
    script = repository / "benchmarks" / "generation.py"
    environment = os.environ | {"PYTHONPATH": str(repository / "scripts"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, "--small", "--output", tmp_path]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    row = (tmp_path / "generation.md").read_text("utf-8").splitlines()[-1].split("|")
    assert all(float(p) > 1e-3 for p in row[5:7])
    lines = (tmp_path / "generation.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 2 * 2
    assert (tmp_path / "generation.png").stat().st_size > 0

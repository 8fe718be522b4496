"""Decode steps where a text is there already: its probability and last word, under guidance."""

import contextlib

import numpy as np
import pytest
import torch

from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.fluency import document_fluency, last_words, next_token_fluency
from ifguide.evaluation.generation import (
    Guidance,
    ProcessorGuidance,
    Sampling,
    generate,
    generate_batch,
    uniform_numbers,
)
from ifguide.models.loading import HiddenStates, build_model
from small_models import small_model
from small_training import small_corpus

SAMPLING = Sampling(continuations=4, max_new_tokens=6)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])
ARCHITECTURE = {
    "model_type": "gpt_neox",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def less_likely(texts: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """A processor that reads the whole text: what has been said is less likely by 2."""
    return logits - 2.0 * torch.zeros_like(logits).scatter(1, texts, 1.0)


AVOID = ProcessorGuidance([less_likely])


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


@torch.no_grad()
def test_a_guided_loss_is_that_of_the_distribution_sampled_from():
    """Against the definition: each text is read up to each token alone."""
    model = small_model("gpt_neox", torch.float64)
    tokens = torch.tensor([[3, 1, 4, 1, 5], [2, 2, 7, 1, 8]])
    found, _ = next_token_fluency(HiddenStates(model), tokens, guidance=AVOID)
    for row, text in enumerate(tokens.tolist()):
        for place in range(1, len(text)):
            before = torch.tensor([text[:place]])
            logits = less_likely(before, model(before).logits[:, -1])
            expected = -logits.log_softmax(-1)[0, text[place]]
            torch.testing.assert_close(found[row, place - 1], expected)


def test_guidance_of_a_few_candidates_has_no_perplexity():
    few = Guidance()
    few.weighs_candidates = True
    model, tokens = small_model("gpt_neox", torch.float64), torch.tensor([[3, 1, 4]])
    with pytest.raises(InputError, match="has no perplexity"):
        next_token_fluency(HiddenStates(model), tokens, guidance=few)


def test_guidance_that_changes_nothing_leaves_losses_and_words(tmp_path):
    corpus = small_corpus(tmp_path)
    tokenizer = train_tokenizer(["the cook is a friend of the miller"] * 3, 280)
    model = build_model(
        ARCHITECTURE,
        vocabulary_size=corpus.meta["vocabulary_size"],
        block_size=corpus.block_size,
        end_of_text=0,
        seed=0,
    )
    plain = document_fluency(model, corpus, reference=model)
    for batch_size in (32, 1):
        guided = document_fluency(
            model, corpus, reference=model, batch_size=batch_size, guidance=Guidance()
        )
        np.testing.assert_allclose(guided.losses, plain.losses, rtol=1e-6)
        np.testing.assert_array_equal(guided.labels, plain.labels)
        np.testing.assert_allclose(guided.divergences, 0.0, atol=1e-5)
    passages = ["the cook is a friend", "the miller of the cook", "a friend"]
    assert last_words(model, tokenizer, passages, guidance=Guidance()) == last_words(
        model, tokenizer, passages
    )


@torch.no_grad()
def test_a_guided_last_word_is_the_likeliest_token_by_token():
    tokenizer = train_tokenizer(["the cook is a friend of the miller"] * 3, 280)
    model = small_model("gpt_neox", torch.float64)
    model.resize_token_embeddings(len(tokenizer))
    passages = ["the cook is a friend", "the miller of the cook", "a friend", "is it a miller"]
    found = last_words(model, tokenizer, passages, guidance=AVOID)
    singly = [last_words(model, tokenizer, [text], guidance=AVOID)[0] for text in passages]
    assert found == singly
    for passage, answer in zip(passages, found, strict=True):
        head, _, word = passage.rpartition(" ")
        ids, ends = tokenizer(head)["input_ids"], tokenizer(f" {word}")["input_ids"]
        right = []
        for token in ends:
            text = torch.tensor([ids])
            right.append(less_likely(text, model(text).logits[:, -1]).argmax().item() == token)
            ids = [*ids, token]
        assert (answer.word, answer.token) == (all(right), right[-1])


@torch.no_grad()
def test_processors_see_each_row_s_own_text_whatever_leaves_the_batch():
    """Row by row and token by token, without cache or batch."""
    model, uniform = small_model("gpt_neox", torch.float64), numbers()
    endless = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=-1, guidance=AVOID)
    end = endless[:, 1:].flatten().mode().values.item()
    found = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=end, guidance=AVOID)
    assert len({row.index(end) for row in found.tolist() if end in row}) > 1
    for row, written in enumerate(found.tolist()):
        text = PROMPTS[row // SAMPLING.continuations].tolist()
        for step, token in enumerate(written):
            before = torch.tensor([text])
            logits = less_likely(before, model(before).logits[:, -1])
            probabilities, order = logits.softmax(-1)[0].sort(descending=True, stable=True)
            inside = probabilities * (probabilities.cumsum(0) - probabilities < SAMPLING.top_p)
            edges = inside.cumsum(0)
            drawn = torch.searchsorted(edges, uniform[row, step] * edges[-1], right=True)
            assert token == order[drawn].item()
            text.append(token)
            if token == end:
                break


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gpt2"])
def test_a_hook_acts_on_padded_prompts_as_on_single_ones(family):
    tokenizer = train_tokenizer(["the cook is a friend of the miller"] * 3, 280)
    model = small_model(family, torch.float64)
    model.resize_token_embeddings(len(tokenizer))
    prompts = ["the cook", "the miller is", "a friend of the cook is", "of"]
    sampling = Sampling(continuations=2, max_new_tokens=4)

    def spoken(texts: list[str], rows_per_batch: int) -> dict[tuple[str, int], str]:
        written = generate(model, tokenizer, texts, sampling, seed=3, rows_per_batch=rows_per_batch)
        return {(texts[c.prompt_index], c.sample): c.text for c in written}

    def louder(module, inputs, output):
        changed = output[0] if isinstance(output, tuple) else output
        changed = changed + 2.0 * changed.roll(1, -1)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    plain = spoken(prompts, 512)
    (blocks,) = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m))
    with contextlib.closing(Handle(blocks[0].register_forward_hook(louder))):
        together = spoken(prompts, 512)
        backwards = spoken(prompts[::-1], 4)
        alone = {key: text for prompt in prompts for key, text in spoken([prompt], 2).items()}
    assert together == backwards == alone
    assert together != plain
    assert spoken(prompts, 512) == plain
    assert end_of_text_id(tokenizer) is not None


class Handle:
    """A hook that closes."""

    def __init__(self, hook) -> None:
        self.close = hook.remove

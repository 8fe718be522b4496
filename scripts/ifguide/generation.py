"""Continuations of prompts: nucleus sampling whose random numbers belong to prompt and sample.

Prompts of equal length form a batch, so nothing is padded; the prompt is read once and its
key-value cache is shared by all continuations of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.seeds import prompt_seed

# Maps (tokens so far (rows, length), logits (rows, vocabulary)) to the logits to sample from.
LogitsProcessor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn: nucleus `top_p`, `temperature`, at most `max_new_tokens`."""

    continuations: int = 25
    top_p: float = 0.9
    temperature: float = 1.0
    max_new_tokens: int = 20


@dataclass(frozen=True)
class Continuation:
    """One continuation of one prompt: its text, and its number of tokens, end of text excluded."""

    prompt_index: int
    sample: int
    seed: int
    text: str
    tokens: int


def uniform_numbers(seed: int, sampling: Sampling) -> np.ndarray:
    """Return the uniform numbers of one prompt: float64 (continuations, max_new_tokens)."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.random((sampling.continuations, sampling.max_new_tokens))


def nucleus_sample(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token a row from the smallest set of tokens whose probability reaches `top_p`.

    logits: (rows, vocabulary); uniform: (rows,) in [0, 1). Returns int64 (rows,).
    """
    probabilities = (logits.float() / sampling.temperature).softmax(-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.double().cumsum(-1)
    kept = (cumulative < sampling.top_p).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    mass = cumulative.gather(1, kept)
    drawn = torch.searchsorted(cumulative, uniform.unsqueeze(1) * mass, right=True)
    return tokens.gather(1, torch.minimum(drawn, kept)).squeeze(1)


@torch.no_grad()
def generate_batch(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    uniform: torch.Tensor,
    sampling: Sampling,
    *,
    end_of_text: int,
    process: LogitsProcessor | None = None,
) -> torch.Tensor:
    """Return continuations int64 (prompts · continuations, at most max_new_tokens), prompt-major.

    prompts: int64 (prompts, length); uniform: float64 (prompts · continuations, max_new_tokens).
    After the end of text a row is filled with the end-of-text token.
    """
    output = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_repeat_interleave(sampling.continuations)
    logits = output.logits[:, -1].repeat_interleave(sampling.continuations, dim=0)
    sequence = prompts.repeat_interleave(sampling.continuations, dim=0)
    length = prompts.shape[1]
    finished = torch.zeros(len(sequence), dtype=torch.bool, device=prompts.device)
    for step in range(sampling.max_new_tokens):
        if process is not None:
            logits = process(sequence, logits)
        token = nucleus_sample(logits, uniform[:, step], sampling)
        token = torch.where(finished, end_of_text, token)
        sequence = torch.cat([sequence, token.unsqueeze(1)], dim=1)
        finished |= token == end_of_text
        if finished.all() or step == sampling.max_new_tokens - 1:
            break
        output = model(input_ids=token.unsqueeze(1), past_key_values=cache, use_cache=True)
        logits = output.logits[:, -1]
    return sequence[:, length:]


def equal_length_batches(
    prompts: Sequence[np.ndarray], prompts_per_batch: int
) -> Iterator[list[int]]:
    """Yield indices of prompts that have the same number of tokens."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    batch: list[int] = []
    for index in order:
        if batch and (
            len(prompts[index]) != len(prompts[batch[0]]) or len(batch) == prompts_per_batch
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, positions: int
) -> list[np.ndarray]:
    """Tokenize prompts. Raises InputError for one that is empty or exceeds `positions` tokens."""
    encoded = [text.ids for text in tokenize(tokenizer, prompts)]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not len(ids):
            raise InputError("a prompt is empty; remove it from the benchmark's files")
        if len(ids) > positions:
            raise InputError(
                f"a prompt of {len(ids)} tokens leaves no room in the model's context for the new "
                f"tokens (at most {positions} fit): {prompt[:60]!r}…; shorten or remove it"
            )
    return encoded


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    rows_per_batch: int = 512,
    process: LogitsProcessor | None = None,
) -> list[Continuation]:
    """Return the continuations of all prompts, ordered by prompt and sample.

    Raises InputError for an empty prompt or one that exceeds the model's context.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    encoded = encode_prompts(tokenizer, prompts, positions=positions - sampling.max_new_tokens)
    end_of_text = end_of_text_id(tokenizer)
    seeds = [prompt_seed(seed, prompt) for prompt in prompts]
    continuations = []
    for batch in equal_length_batches(encoded, max(1, rows_per_batch // sampling.continuations)):
        uniform = np.concatenate([uniform_numbers(seeds[index], sampling) for index in batch])
        rows = generate_batch(
            model,
            torch.from_numpy(np.stack([encoded[index] for index in batch])).to(model.device),
            torch.from_numpy(uniform).to(model.device),
            sampling,
            end_of_text=end_of_text,
            process=process,
        ).cpu()
        owners = [(index, sample) for index in batch for sample in range(sampling.continuations)]
        for (index, sample), row in zip(owners, rows.tolist(), strict=True):
            ids = row[: row.index(end_of_text)] if end_of_text in row else row
            text = tokenizer.decode(ids)
            continuations.append(Continuation(index, sample, seeds[index], text, len(ids)))
    return sorted(continuations, key=lambda c: (c.prompt_index, c.sample))

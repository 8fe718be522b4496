"""Continuations of prompts: nucleus sampling whose random numbers belong to prompt and sample.

Prompts of equal length form a batch, so nothing is padded; the prompt is read once and its
key-value cache is shared out to all continuations of it. Rows that have ended leave the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.seeds import prompt_seed

# A nucleus of trained models rarely has more tokens; rows where it has are sorted whole.
NARROW_NUCLEUS = 256
# Rows that have ended are taken out of the batch once they are so large a share of it.
ENDED_SHARE = 0.125


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


class Rows(Protocol):
    """What a decode-time method knows of the rows of a batch while they are written."""

    def weights(self, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return new weights, of any sum, of candidate tokens; all three (rows, candidates)."""

    def append(self, token: torch.Tensor) -> None:
        """Take note of the next token (rows,) of every row."""

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (indices) only."""


class Guidance(Protocol):
    """A decode-time method: it weighs the `top_k` most probable tokens of the nucleus anew."""

    top_k: int | None

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        """Begin a batch: `copies` rows for each of the prompts (prompts, length), prompt-major."""


def uniform_numbers(seed: int, sampling: Sampling) -> np.ndarray:
    """Return the uniform numbers of one prompt: float64 (continuations, max_new_tokens)."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.random((sampling.continuations, sampling.max_new_tokens))


def nucleus(
    logits: torch.Tensor, sampling: Sampling, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the most probable tokens, their probabilities, and whether the nucleus is complete.

    The nucleus is the smallest set of tokens whose probability reaches `top_p`.

    logits: (rows, vocabulary). Returns tokens int64 (rows, at most `width`), most probable first;
    their probabilities float64, zero outside the nucleus; and bool (rows,).
    """
    scaled = logits.float() / sampling.temperature
    total = scaled.logsumexp(-1, keepdim=True)
    width = min(width, logits.shape[-1])
    if width < logits.shape[-1]:
        highest, tokens = scaled.topk(width)
    else:
        highest, tokens = scaled.sort(descending=True, stable=True)
    probabilities = (highest - total).double().exp()
    cumulative = probabilities.cumsum(-1)
    inside = cumulative - probabilities < sampling.top_p
    complete = (cumulative[:, -1] >= sampling.top_p) | (width == logits.shape[-1])
    return tokens, probabilities * inside, complete


def draw(tokens: torch.Tensor, weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw one of `tokens` a row, in proportion to `weights`, by its uniform number.

    tokens int64 and weights float64: (rows, candidates); uniform float64: (rows,) in [0, 1).
    """
    cumulative = weights.cumsum(-1)
    drawn = torch.searchsorted(
        cumulative, uniform.unsqueeze(1) * cumulative[:, -1:], right=True
    ).clamp(max=tokens.shape[1] - 1)
    return tokens.gather(1, drawn).squeeze(1)


def nucleus_sample(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token a row from the nucleus: logits (rows, vocabulary), uniform (rows,)."""
    tokens, probabilities, complete = nucleus(logits, sampling, NARROW_NUCLEUS)
    drawn = draw(tokens, probabilities, uniform)
    if not complete.all():
        wide = (~complete).nonzero().squeeze(1)
        tokens, probabilities, _ = nucleus(logits[wide], sampling, logits.shape[-1])
        drawn[wide] = draw(tokens, probabilities, uniform[wide])
    return drawn


def guided_sample(
    logits: torch.Tensor,
    uniform: torch.Tensor,
    sampling: Sampling,
    rows: Rows,
    top_k: int | None,
) -> torch.Tensor:
    """Draw one token a row from the `top_k` first of the nucleus, as `rows` weighs them."""
    tokens, probabilities, _ = nucleus(logits, sampling, top_k or logits.shape[-1])
    candidates = int((probabilities > 0).any(0).sum())
    tokens, probabilities = tokens[:, :candidates], probabilities[:, :candidates]
    return draw(tokens, rows.weights(tokens, probabilities), uniform)


@torch.no_grad()
def generate_batch(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    uniform: torch.Tensor,
    sampling: Sampling,
    *,
    end_of_text: int,
    guidance: Guidance | None = None,
) -> torch.Tensor:
    """Return continuations int64 (prompts · continuations, max_new_tokens), prompt-major.

    prompts: int64 (prompts, length); uniform: float64 (prompts · continuations, max_new_tokens).
    After the end of text a row is filled with the end-of-text token.
    """
    copies = sampling.continuations
    guided = guidance.begin(prompts, copies) if guidance else None
    output = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_repeat_interleave(copies)
    logits = output.logits[:, -1].repeat_interleave(copies, dim=0)
    continuations = torch.full(uniform.shape, end_of_text, device=prompts.device)
    rows = torch.arange(len(uniform), device=prompts.device)  # those that still go on
    for step in range(sampling.max_new_tokens):
        if guided is None:
            token = nucleus_sample(logits, uniform[rows, step], sampling)
        else:
            token = guided_sample(logits, uniform[rows, step], sampling, guided, guidance.top_k)
        if step:
            token = torch.where(continuations[rows, step - 1] == end_of_text, end_of_text, token)
        continuations[rows, step] = token
        going = (token != end_of_text).nonzero().squeeze(1)
        if not len(going) or step == sampling.max_new_tokens - 1:
            break
        if len(going) <= (1 - ENDED_SHARE) * len(rows):
            rows, token = rows[going], token[going]
            cache.batch_select_indices(going)
            if guided is not None:
                guided.keep(going)
        if guided is not None:
            guided.append(token)
        output = model(input_ids=token.unsqueeze(1), past_key_values=cache, use_cache=True)
        logits = output.logits[:, -1]
    return continuations


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


def generate_ids(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    end_of_text: int,
    rows_per_batch: int = 512,
    guidance: Guidance | None = None,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield the index of each prompt, in the order of their lengths, and its continuations.

    prompts: token ids, (length,) each; seeds: of each prompt's random numbers. A continuation ends
    before its end of text.
    """
    copies = sampling.continuations
    for batch in equal_length_batches(prompts, max(1, rows_per_batch // copies)):
        uniform = np.concatenate([uniform_numbers(seeds[index], sampling) for index in batch])
        rows = generate_batch(
            model,
            torch.from_numpy(np.stack([prompts[index] for index in batch])).to(model.device),
            torch.from_numpy(uniform).to(model.device),
            sampling,
            end_of_text=end_of_text,
            guidance=guidance,
        ).tolist()
        rows = [row[: row.index(end_of_text)] if end_of_text in row else row for row in rows]
        for place, index in enumerate(batch):
            yield index, rows[place * copies : (place + 1) * copies]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    rows_per_batch: int = 512,
    guidance: Guidance | None = None,
) -> Iterator[Continuation]:
    """Yield the continuations of all prompts: those of one prompt together, ordered by sample.

    A continuation depends on the model, the seed, its prompt and its sample alone; the order of
    the prompts is that of their lengths. Raises InputError, before the first one, for an empty
    prompt or one that exceeds the model's context.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    encoded = encode_prompts(tokenizer, prompts, positions=positions - sampling.max_new_tokens)
    seeds = [prompt_seed(seed, prompt) for prompt in prompts]
    for index, rows in generate_ids(
        model,
        encoded,
        seeds,
        sampling,
        end_of_text=end_of_text_id(tokenizer),
        rows_per_batch=rows_per_batch,
        guidance=guidance,
    ):
        for sample, ids in enumerate(rows):
            yield Continuation(index, sample, seeds[index], tokenizer.decode(ids), len(ids))

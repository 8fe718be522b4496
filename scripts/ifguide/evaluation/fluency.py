"""Fluency: losses of held-out documents, and the last word of LAMBADA passages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.benchmark_formats import split_last_word
from ifguide.data.corpus import Corpus, tokenize
from ifguide.errors import InputError
from ifguide.evaluation.generation import Guidance, Sampling, candidates
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.precision import at_least_float32

# So many bytes of logits are made at once where every position has logits of its own.
LOGITS_BYTES = 2**28


def document_losses(
    model: PreTrainedModel,
    corpus: Corpus,
    *,
    batch_size: int = 32,
    guidance: Guidance | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed loss and the number of label tokens of every document of `corpus`.

    Both are float64 (documents,); exp(sum of losses / sum of labels) is the perplexity of any group
    of documents. A token's context is its block, so a block's first token has no loss. With
    `guidance` the loss is that of the guided logits, before a temperature or nucleus.
    """
    body = HiddenStates(model)
    if guidance is not None:
        row_bytes = 4 * model.config.vocab_size * corpus.block_size
        batch_size = max(1, min(batch_size, LOGITS_BYTES // row_bytes))
    losses = np.zeros(corpus.meta["documents"])
    labels = np.zeros(corpus.meta["documents"])
    for start in range(0, len(corpus.tokens), batch_size):
        rows = range(start, min(start + batch_size, len(corpus.tokens)))
        tokens = torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64)).to(model.device)
        documents = corpus.documents.rows(rows)[:, 1:]
        with torch.no_grad():
            if guidance is None:
                scores = token_losses(body, tokens)
            else:
                scores = guided_losses(model, tokens, guidance)
            scores = scores[:, 1:].double().cpu().numpy()
        known = documents >= 0
        np.add.at(losses, documents[known], scores[known])
        np.add.at(labels, documents[known], 1)
    return losses, labels


def guided_losses(model: PreTrainedModel, tokens: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Return -log p of each token after those before it, by the guided logits.

    tokens: int64 (rows, T). Returns float32 or wider (rows, T); column 0 is 0. The guidance sees
    each row's tokens one after another, as it does while text is written.
    Raises InputError for guidance that weighs a few candidates: of all others it makes 0.
    """
    if guidance.weighs_candidates:
        raise InputError(
            "a decode step that weighs a few candidates gives most tokens probability 0, and so "
            "has no perplexity; leave `perplexity` out of its measured_on"
        )
    logits = at_least_float32(model(input_ids=tokens, use_cache=False).logits)
    rows = guidance.begin(tokens[:, :1], 1)
    losses = [logits.new_zeros(len(tokens))]
    for place in range(1, tokens.shape[1]):
        guided = rows.logits(logits[:, place - 1])
        losses.append(torch.nn.functional.cross_entropy(guided, tokens[:, place], reduction="none"))
        rows.append(tokens[:, place])
    return torch.stack(losses, dim=1)


@dataclass(frozen=True)
class LastWord:
    """Whether a passage's last word, and its last token, is the model's first choice."""

    word: bool
    token: bool


@torch.no_grad()
def last_words(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[str],
    *,
    batch_size: int = 32,
    guidance: Guidance | None = None,
    sampling: Sampling | None = None,
) -> list[LastWord]:
    """Predict the last word of each passage greedily from all that precedes it.

    The word counts where every one of its tokens is the most likely one: under `guidance`, the
    likeliest of the candidates that `sampling` leaves. The beginning of a passage is dropped where
    it exceeds the model's context. Raises InputError for a passage of a single word.
    """
    rows = _heads_and_words(model, tokenizer, passages)
    results: list[LastWord | None] = [None] * len(rows)
    for batch in _batches(rows, batch_size, equal=guidance is not None):
        if guidance is None:
            choices = _first_choices(model, rows, batch)
        else:
            choices = _guided_choices(model, rows, batch, guidance, sampling or Sampling())
        for index, chosen in zip(batch, choices, strict=True):
            ids, word_length = rows[index]
            right = chosen == torch.from_numpy(ids[-word_length:])
            results[index] = LastWord(bool(right.all()), bool(right[-1]))
    return results


def longest_last_word(tokenizer: PreTrainedTokenizerBase, passages: Sequence[str]) -> int:
    """Return the tokens of the longest last word of the passages."""
    words = [" " + parts[1] for passage in passages if (parts := split_last_word(passage))]
    return max((len(word.ids) for word in tokenize(tokenizer, words)), default=0)


def _heads_and_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, passages: Sequence[str]
) -> list[tuple[np.ndarray, int]]:
    """Return the tokens of each passage, and how many of them are its last word."""
    split = []
    for number, passage in enumerate(passages, start=1):
        if (parts := split_last_word(passage)) is None:
            raise InputError(f"LAMBADA passage {number}: a single word, nothing to predict from")
        split.append(parts)
    heads = tokenize(tokenizer, [head for head, _ in split])
    words = tokenize(tokenizer, [" " + word for _, word in split])
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    return [
        (np.concatenate([head.ids, word.ids])[-positions:], len(word.ids))
        for head, word in zip(heads, words, strict=True)
    ]


def _batches(
    rows: Sequence[tuple[np.ndarray, int]], batch_size: int, *, equal: bool
) -> Iterator[list[int]]:
    """Yield indices of passages by length; equal: all of a batch have the same lengths."""

    def lengths(index: int) -> tuple[int, int]:
        ids, word_length = rows[index]
        return len(ids), word_length if equal else 0

    order = sorted(range(len(rows)), key=lengths)
    groups = [list(group) for _, group in groupby(order, key=lengths)] if equal else [order]
    for group in groups:
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


def _first_choices(
    model: PreTrainedModel, rows: Sequence[tuple[np.ndarray, int]], batch: Sequence[int]
) -> list[torch.Tensor]:
    """Return the likeliest tokens at the places of each last word; passages are padded right."""
    tokens = torch.zeros(len(batch), max(len(rows[i][0]) for i in batch), dtype=torch.long)
    for row, index in enumerate(batch):
        tokens[row, : len(rows[index][0])] = torch.from_numpy(rows[index][0])
    choices = model(input_ids=tokens.to(model.device), use_cache=False).logits.argmax(-1).cpu()
    ends = [(len(ids), word_length) for ids, word_length in (rows[index] for index in batch)]
    return [
        choices[row, end - word_length - 1 : end - 1] for row, (end, word_length) in enumerate(ends)
    ]


def _guided_choices(
    model: PreTrainedModel,
    rows: Sequence[tuple[np.ndarray, int]],
    batch: Sequence[int],
    guidance: Guidance,
    sampling: Sampling,
) -> torch.Tensor:
    """Return the same (passages, word length), of passages of equal lengths, under guidance."""
    tokens = torch.from_numpy(np.stack([rows[index][0] for index in batch])).to(model.device).long()
    head = tokens.shape[1] - rows[batch[0]][1]
    logits = model(input_ids=tokens, use_cache=False).logits
    guided = guidance.begin(tokens[:, :head], 1)
    choices = []
    for place in range(head, tokens.shape[1]):
        own = guided.logits(logits[:, place - 1])
        if guidance.weighs_candidates:
            likely, weights = candidates(own, sampling, guided, guidance.top_k)
            choices.append(likely.gather(1, weights.argmax(-1, keepdim=True)).squeeze(1))
        else:
            choices.append(own.argmax(-1))
        guided.append(tokens[:, place])
    return torch.stack(choices, dim=1).cpu()

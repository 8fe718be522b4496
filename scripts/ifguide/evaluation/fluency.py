"""Fluency: losses and divergence on held-out documents, losses of continuations, last words.

How far a model is from the uncensored one is KL(p_uncensored || p_model) of the next token on clean
text: unlike the accuracy of last words it does not hang on a few circuits that copy, and unlike a
perplexity it sees what has changed where the loss has not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.benchmark_formats import split_last_word
from ifguide.data.corpus import Corpus, end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.evaluation.generation import Guidance, Sampling, candidates
from ifguide.models.loading import HiddenStates
from ifguide.models.precision import at_least_float32

# So many bytes of logits are made at once where every position has logits of its own.
LOGITS_BYTES = 2**28
# And so many where they are made from hidden states, a part of the positions at once.
CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class DocumentFluency:
    """Sums over the label tokens of each document, in nats, and their counts.

    All are float64 (documents,). `divergences` is None where there was no reference.
    """

    losses: np.ndarray
    labels: np.ndarray
    divergences: np.ndarray | None = None


def document_fluency(
    model: PreTrainedModel,
    corpus: Corpus,
    *,
    reference: PreTrainedModel | None = None,
    batch_size: int = 32,
    guidance: Guidance | None = None,
) -> DocumentFluency:
    """Return the losses of every document of `corpus`, and the model's divergence on it.

    exp(sum of losses / sum of labels) is the perplexity of any group of documents; sum of
    divergences / sum of labels is KL(p_reference || p_model) of the next token, a mean over label
    tokens. A token's context is its block, so a block's first token has no loss. With `guidance`
    both are those of the guided logits, before a temperature or nucleus; the reference has none.
    """
    body = HiddenStates(model)
    other = None if reference is None else HiddenStates(reference)
    if guidance is not None:
        row_bytes = 4 * model.config.vocab_size * corpus.block_size
        batch_size = max(1, min(batch_size, LOGITS_BYTES // row_bytes))
    count = corpus.meta["documents"]
    losses, labels, divergences = np.zeros(count), np.zeros(count), np.zeros(count)
    for start in range(0, len(corpus.tokens), batch_size):
        rows = range(start, min(start + batch_size, len(corpus.tokens)))
        tokens = torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64)).to(model.device)
        documents = corpus.documents.rows(rows)[:, 1:]
        known = documents >= 0
        with torch.no_grad():
            own, apart = next_token_fluency(body, tokens, other, guidance)
        np.add.at(losses, documents[known], own.double().cpu().numpy()[known])
        np.add.at(labels, documents[known], 1)
        if apart is not None:
            np.add.at(divergences, documents[known], apart.double().cpu().numpy()[known])
    return DocumentFluency(losses, labels, None if reference is None else divergences)


def next_token_fluency(
    body: HiddenStates,
    tokens: torch.Tensor,
    reference: HiddenStates | None = None,
    guidance: Guidance | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return -log p of each token after those before it, and KL(p_reference || p) at its place.

    tokens: int64 (rows, T). Both are float32 or wider, (rows, T - 1), nats; the second is None
    without a reference.
    """
    hidden = None if reference is None else reference(tokens)
    losses, divergences = [], []
    place = 0
    for logits in next_token_logits(body, tokens, guidance):
        stop = place + logits.shape[1]
        log_p = logits.log_softmax(-1)
        labels = tokens[:, place + 1 : stop + 1].unsqueeze(-1)
        losses.append(-log_p.gather(-1, labels).squeeze(-1))
        if reference is not None:
            log_q = reference.logits(hidden[:, place:stop]).log_softmax(-1)
            divergences.append((log_q.exp() * (log_q - log_p)).sum(-1))
        place = stop
    return torch.cat(losses, dim=1), torch.cat(divergences, dim=1) if divergences else None


def next_token_logits(
    body: HiddenStates, tokens: torch.Tensor, guidance: Guidance | None = None
) -> Iterator[torch.Tensor]:
    """Yield the logits of the tokens after the first, in order: (rows, some places, vocabulary).

    So many places at once that memory stays small; under guidance one, which sees each row's
    tokens one after another, as it does while text is written. They are float32 or wider.
    Raises InputError for guidance that weighs a few candidates: of all others it makes 0.
    """
    if guidance is None:
        hidden = body(tokens)[:, :-1]
        row_bytes = 4 * body.model.config.vocab_size * len(tokens)
        for part in hidden.split(max(1, CHUNK_BYTES // row_bytes), dim=1):
            yield body.logits(part)
        return
    if guidance.weighs_candidates:
        raise InputError(
            "a decode step that weighs a few candidates gives most tokens probability 0, and so "
            "has no perplexity; leave `perplexity` out of its measured_on"
        )
    logits = at_least_float32(body.model(input_ids=tokens, use_cache=False).logits)
    rows = guidance.begin(tokens[:, :1], 1)
    for place in range(1, tokens.shape[1]):
        yield rows.logits(logits[:, place - 1]).unsqueeze(1)
        rows.append(tokens[:, place])


@torch.no_grad()
def continuation_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, str]],
    *,
    tokens_per_batch: int = 8192,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed loss of each continuation after its prompt, nats, and its tokens.

    texts: pairs of a prompt and its continuation, which are tokenized apart, as they are written;
    the end of a text is no token of it. Both are float64 (pairs,). A prompt loses its beginning
    where both exceed the model's positions; an empty one is the end of text, after which documents
    begin. What fills a batch stands on the right, where a causal model's losses cannot see it.
    """
    body = HiddenStates(model)
    rows = _prompts_and_continuations(model, tokenizer, texts)
    losses = np.zeros(len(rows))
    counts = np.array([new for _, new in rows], dtype=np.float64)
    order = sorted((i for i in range(len(rows)) if counts[i]), key=lambda i: len(rows[i][0]))
    for batch in _within_budget(order, [len(ids) for ids, _ in rows], tokens_per_batch):
        tokens = torch.zeros(len(batch), max(len(rows[i][0]) for i in batch), dtype=torch.long)
        new = torch.zeros_like(tokens, dtype=torch.bool)
        for row, index in enumerate(batch):
            ids, count = rows[index]
            tokens[row, : len(ids)] = torch.from_numpy(ids)
            new[row, len(ids) - count : len(ids)] = True
        tokens, new = tokens.to(model.device), new[:, 1:].to(model.device)
        hidden, labels = body(tokens)[:, :-1][new], tokens[:, 1:][new]
        at_once = max(1, CHUNK_BYTES // (4 * model.config.vocab_size))
        own = torch.cat(
            [
                torch.nn.functional.cross_entropy(body.logits(part), right, reduction="none")
                for part, right in zip(hidden.split(at_once), labels.split(at_once), strict=True)
            ]
        )
        where = new.nonzero()[:, 0].cpu().numpy()
        np.add.at(losses, np.array(batch)[where], own.double().cpu().numpy())
    return losses, counts


def _prompts_and_continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> list[tuple[np.ndarray, int]]:
    """Return the tokens of each pair, and how many of them are the continuation's."""
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    prompts = tokenize(tokenizer, [prompt for prompt, _ in texts])
    continuations = tokenize(tokenizer, [continuation for _, continuation in texts])
    rows = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        new = continuation.ids[: positions - 1]
        head = prompt.ids if len(prompt.ids) else np.array([end_of_text_id(tokenizer)])
        rows.append((np.concatenate([head, new])[-positions:], len(new)))
    return rows


def _within_budget(
    order: Sequence[int], lengths: Sequence[int], tokens_per_batch: int
) -> Iterator[list[int]]:
    """Yield the indices of `order`, by ascending length, in batches of so many padded tokens."""
    batch: list[int] = []
    for index in order:
        if batch and lengths[index] * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


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
    it exceeds the model's context. Raises InputError for a passage of a single word, and for a last
    word that does not fit with a token before it.
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
    longest = max((len(word.ids) for word in words), default=0)
    if longest >= positions:
        raise InputError(
            f"LAMBADA: a last word has {longest} tokens, which do not fit into the model's "
            f"{positions} positions with one before them; remove that passage"
        )
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

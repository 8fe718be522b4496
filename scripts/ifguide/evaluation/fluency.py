"""Fluency: losses of held-out documents, and the last word of LAMBADA passages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.benchmark_formats import split_last_word
from ifguide.data.corpus import Corpus, tokenize
from ifguide.errors import InputError
from ifguide.models.loading import HiddenStates, token_losses


def document_losses(
    model: PreTrainedModel, corpus: Corpus, *, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed loss and the number of label tokens of every document of `corpus`.

    Both are float64 (documents,); exp(sum of losses / sum of labels) is the perplexity of any group
    of documents. A token's context is its block, so a block's first token has no loss.
    """
    body = HiddenStates(model)
    losses = np.zeros(corpus.meta["documents"])
    labels = np.zeros(corpus.meta["documents"])
    for start in range(0, len(corpus.tokens), batch_size):
        rows = range(start, min(start + batch_size, len(corpus.tokens)))
        tokens = torch.from_numpy(corpus.tokens.rows(rows).astype(np.int64)).to(model.device)
        documents = corpus.documents.rows(rows)[:, 1:]
        with torch.no_grad():
            scores = token_losses(body, tokens)[:, 1:].double().cpu().numpy()
        known = documents >= 0
        np.add.at(losses, documents[known], scores[known])
        np.add.at(labels, documents[known], 1)
    return losses, labels


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
) -> list[LastWord]:
    """Predict the last word of each passage greedily from all that precedes it.

    The word counts where every one of its tokens is the most likely one. Passages are padded on the
    right; their beginning is dropped where they exceed the model's context.
    Raises InputError for a passage of a single word.
    """
    split = []
    for number, passage in enumerate(passages, start=1):
        if (parts := split_last_word(passage)) is None:
            raise InputError(f"LAMBADA passage {number}: a single word, nothing to predict from")
        split.append(parts)
    heads = tokenize(tokenizer, [head for head, _ in split])
    words = tokenize(tokenizer, [" " + word for _, word in split])
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    rows = [
        (np.concatenate([head.ids, word.ids])[-positions:], len(word.ids))
        for head, word in zip(heads, words, strict=True)
    ]
    results: list[LastWord | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        length = max(len(rows[index][0]) for index in batch)
        tokens = torch.zeros(len(batch), length, dtype=torch.long)
        for row, index in enumerate(batch):
            tokens[row, : len(rows[index][0])] = torch.from_numpy(rows[index][0])
        choices = model(input_ids=tokens.to(model.device), use_cache=False).logits.argmax(-1).cpu()
        for row, index in enumerate(batch):
            ids, word_length = rows[index]
            end = len(ids)
            right = choices[row, end - word_length - 1 : end - 1] == torch.from_numpy(
                ids[end - word_length :]
            )
            results[index] = LastWord(bool(right.all()), bool(right[-1]))
    return results

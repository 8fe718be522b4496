"""Texts of unequal lengths as batches, and what is computed of each: losses and divergences.

With p the model, p₀ another one, x_t the tokens of a text and n its labels (those after its
context), all in nats,

    mean loss of a text     −(1/n) Σ_t log p(x_t | x_<t)
    divergence              KL(p₀ || p) of the next token, a mean over the labels of all texts
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ifguide.data.corpus import Corpus
from ifguide.data.document_places import DocumentPlaces
from ifguide.data.own_generations import OwnGeneration
from ifguide.models.labels import IGNORED_LABEL
from ifguide.models.precision import at_least_float32


class TokenText(NamedTuple):
    """Token ids of a text; the first `context` of them, at least one, are no labels."""

    ids: list[int]
    context: int = 1


def stacked(texts: Sequence[TokenText]) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels` of texts: int64 (texts, longest), filled up on the right.

    A causal model's losses cannot see what stands on the right.
    """
    longest = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED_LABEL)
    for row, text in enumerate(texts):
        own = torch.tensor(text.ids, dtype=torch.int64)
        ids[row, : len(own)] = own
        labels[row, text.context : len(own)] = own[text.context :]
    return {"input_ids": ids, "labels": labels}


def next_token_log_p(model: torch.nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    """Return log p of every next token, float32 or wider: (texts, T − 1, vocabulary)."""
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    return at_least_float32(logits).log_softmax(-1)


def text_losses(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of each text over its own labels, padding left out: (texts,).

    log_p: (texts, T − 1, vocabulary), of the next tokens; labels: int64 (texts, T).
    """
    following = labels[:, 1:]
    counted = following != IGNORED_LABEL
    losses = -log_p.gather(-1, following.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (losses * counted).sum(1) / counted.sum(1)


def mean_divergence(
    reference: torch.Tensor, log_p: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return KL(p₀ || p) of the next token, a mean over the labels of all texts.

    reference and log_p: log-probabilities (texts, T − 1, vocabulary); labels: int64 (texts, T).
    """
    counted = labels[:, 1:] != IGNORED_LABEL
    divergences = (reference.exp() * (reference - log_p)).sum(-1)
    return divergences[counted].mean()


def written_texts(generations: Sequence[OwnGeneration], positions: int) -> list[TokenText]:
    """Return what a model wrote, after its prompts; empty continuations are left out.

    A prompt loses its beginning where both exceed the model's `positions`.
    """
    texts = []
    for own in generations:
        continuation = own.continuation[: positions - 1]
        prompt = own.prompt[-(positions - len(continuation)) :]
        if continuation:
            texts.append(TokenText([*prompt, *continuation], len(prompt)))
    return texts


def corpus_texts(
    corpus: Corpus, unit: str, numbers: Sequence[int], positions: int
) -> Iterator[list[TokenText]]:
    """Yield each of some documents or blocks of a corpus, in pieces that a model can read.

    A document follows on the end of a text, as in the corpus; its last label is its own end. A
    block begins where it was cut, and its first token is no label. A piece of one token is left
    out: it has no label.
    """
    places = DocumentPlaces(corpus, by_block=unit == "block")
    begin = [] if unit == "block" else [corpus.meta["end_of_text"]]
    for number in numbers:
        ids = [*begin, *corpus.tokens.stretch(*places.bounds(number)).tolist()]
        pieces = (ids[start : start + positions] for start in range(0, len(ids), positions))
        yield [TokenText(piece) for piece in pieces if len(piece) > 1]


def least_toxic(toxicity: np.ndarray, share: float) -> np.ndarray:
    """Return the indices of the least toxic share of texts, least toxic first; ties by index.

    toxicity: float (texts,). NaN, a text without a score, counts as one of the texts and is never
    among those kept.
    """
    order = np.argsort(toxicity, kind="stable")  # NaN comes last
    scored = int(np.isfinite(toxicity).sum())
    return order[: min(int(share * len(toxicity)), scored)]

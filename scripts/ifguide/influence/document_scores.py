"""Scores that are made document by document, as scores of a corpus's tokens.

What is said of characters (by a judge, which has tokens of its own, or of words) is said of the
corpus's tokens through the characters that they stand for.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from ifguide.data.corpus import Corpus, TokenizedText
from ifguide.data.document_places import first_tokens
from ifguide.influence.mask_transfer import (
    characters_of,
    require_same_tokens,
    token_ranges,
    tokenize_again,
)

DOCUMENTS_AT_ONCE = 256


def shared_out(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return values that move from tokens to other tokens of a text: float32 (target tokens,).

    A value is spread evenly over its token's characters, and a target token has the sum of what its
    own hold. So the sum over a text stays, where the target tokens hold every character.
    values: (source tokens,); source, target: characters [start, end) that each touches, int64
    (tokens, 2), in order, as `token_ranges` takes them.
    """
    if not len(values):
        return np.zeros(len(target), np.float32)
    ranges = token_ranges(source)
    # The sum of values before a position: it is constant where no source token stands.
    after = np.cumsum(values, dtype=np.float64)
    before = np.stack([after - values, after], axis=1).reshape(-1)
    held = np.interp(token_ranges(target), ranges.reshape(-1), before)
    return np.diff(held, axis=1)[:, 0].astype(np.float32)


def highest_touched(values: np.ndarray, spans: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the highest value of the spans that each token touches, 0 where it touches none.

    values: (spans,), none below 0; spans, target: characters [start, end), int64 (…, 2). float32.
    """
    found = np.zeros(len(target), np.float32)
    for value, (start, stop) in zip(values, spans, strict=True):
        touched = (target[:, 0] < stop) & (target[:, 1] > start)
        found[touched] = np.maximum(found[touched], value)
    return found


def documents_again(
    corpus: Corpus, texts: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, TokenizedText]]:
    """Yield each document's text and its tokens with their characters, in order.

    texts: every document's number and text, in order. Raises InputError where a text is not what
    the corpus holds.
    """
    first = first_tokens(corpus)
    backend = characters_of(tokenizer)
    texts = iter(texts)
    while batch := list(islice(texts, DOCUMENTS_AT_ONCE)):
        again = tokenize_again(backend, [text for _, text in batch])
        for (document, text), tokens in zip(batch, again, strict=True):
            require_same_tokens(corpus, document, int(first[document]), tokens.ids)
            yield text, tokens


def in_blocks(corpus: Corpus, scores: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the shards of a corpus, float32 (blocks, T), filled with documents' scores.

    scores: of each document in order, (tokens,), its end of text left out, which scores 0, as
    padding and column 0 do. Raises ValueError where they are not as many as the corpus's tokens.
    """
    pending = np.zeros(0, np.float32)
    stream = iter(scores)
    for shard in corpus.tokens.shards:
        parts, held = [pending], len(pending)
        while held < shard.size and (own := next(stream, None)) is not None:
            parts.append(np.append(own, 0).astype(np.float32))
            held += len(parts[-1])
        flat = np.concatenate(parts)
        filled, pending = flat[: shard.size], flat[shard.size :]
        rows = np.zeros(shard.shape, np.float32)
        rows.reshape(-1)[: len(filled)] = filled
        rows[:, 0] = 0
        yield rows
        missing = shard.size - len(filled)
    if len(pending) or next(stream, None) is not None or missing != corpus.meta["padding"]:
        raise ValueError("the documents have other tokens than the corpus")


def document_tokens(corpus: Corpus) -> Iterator[np.ndarray]:
    """Yield the tokens of each document in order, int64, its end of text left out."""
    bounds: Sequence[int] = first_tokens(corpus).tolist()
    for start, stop in zip(bounds, bounds[1:], strict=False):
        yield corpus.tokens.stretch(start, stop - 1).astype(np.int64)

"""A selection mask moves from the tokens of one tokenizer to those of another, by characters.

A token stands for a range of its document's characters. Tokens that are parts of one character (a
byte-level tokenizer may split it) divide it equally, so that a mask moved to the same tokenizer is
the same mask. A token is marked when selected tokens hold at least half of its characters: a
neighbouring word is not suppressed for the space that two tokenizers cut differently. Special
tokens stand for no character, and are never marked.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerBase

from ifguide.data.corpus import Corpus, ShardedArray, TokenizedText
from ifguide.data.document_places import first_tokens
from ifguide.data.special_tokens import plain_text_backend
from ifguide.errors import InputError
from ifguide.files.checksums import remedy

MARKED_SHARE = 0.5


def token_ranges(offsets: np.ndarray) -> np.ndarray:
    """Return where each token begins and ends, in characters and fractions: float64 (tokens, 2).

    offsets: int64 (tokens, 2), [start, end) of the characters that a token touches, in order. Of k
    tokens that touch a character, each has a k-th of it. A token of no character has no length.
    """
    ranges = offsets.astype(np.float64)
    holds = offsets[:, 1] > offsets[:, 0]
    starts, ends = offsets[holds].T
    order = np.arange(len(starts))

    def place(characters: np.ndarray, tokens_before: np.ndarray) -> np.ndarray:
        first = np.searchsorted(ends, characters, side="right")
        touching = np.searchsorted(starts, characters, side="right") - first
        return characters + (tokens_before - first) / touching

    ranges[holds] = np.stack([place(starts, order), place(ends - 1, order + 1)], axis=1)
    return ranges


def move_selection(
    selected: np.ndarray, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which target tokens are marked, bool, and the selected characters that each holds.

    selected: bool (source tokens,); source, target: ranges of characters, float64 (tokens, 2).
    """
    # The selected characters before a position: it rises along selected tokens only.
    lengths = (source[:, 1] - source[:, 0]) * selected
    after = np.cumsum(lengths)
    positions = source.reshape(-1)
    before_position = np.stack([after - lengths, after], axis=1).reshape(-1)
    held = np.diff(np.interp(target, positions, before_position), axis=1)[:, 0]
    length = target[:, 1] - target[:, 0]
    return (length > 0) & (held > 0) & (held >= MARKED_SHARE * length), held


@dataclass(frozen=True)
class Transfer:
    """Marked tokens by shard, bool (blocks, block_size), and what became of the selection."""

    masks: list[np.ndarray]
    selected_source_tokens: int
    selected_tokens: int
    selected_characters: int
    held_characters: float
    documents_with_selection: int


def transfer_mask(
    texts: Iterable[tuple[int, str]],
    mask: ShardedArray,
    source: Corpus,
    target: Corpus,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
) -> Transfer:
    """Move `mask` from the tokens of `source` to those of `target`, the same documents' tokens.

    texts: every document's number and text, in order; only those with a selected token are
    tokenized again. mask: bool, shape of the source's tokens.

    Raises InputError where a text, tokenized again, is not what the corpus holds.
    """
    first_source, first_target = first_tokens(source), first_tokens(target)
    positions = np.concatenate(
        [
            np.flatnonzero(shard) + row * source.block_size
            for shard, row in zip(mask.shards, mask.first_rows[:-1], strict=True)
        ]
    )
    owners = np.searchsorted(first_source, positions, side="right") - 1
    wanted = set(np.unique(owners).tolist())
    masks = [np.zeros(shard.shape, dtype=bool) for shard in target.tokens.shards]
    marks = ShardedArray(masks)
    backends = [characters_of(source_tokenizer), characters_of(target_tokenizer)]
    selected_characters = held_characters = 0.0
    touched = (item for item in texts if item[0] in wanted)
    while batch := list(islice(touched, 256)):
        tokenized = [tokenize_again(backend, [text for _, text in batch]) for backend in backends]
        for (document, _), here, there in zip(batch, *tokenized, strict=True):
            start = first_source[document]
            require_same_tokens(source, document, start, here.ids)
            require_same_tokens(target, document, first_target[document], there.ids)
            low, high = np.searchsorted(positions, [start, start + len(here.ids)])
            selected = np.zeros(len(here.ids), dtype=bool)
            selected[positions[low:high] - start] = True
            ranges = token_ranges(here.offsets)
            marked, held = move_selection(selected, ranges, token_ranges(there.offsets))
            selected_characters += float((ranges[:, 1] - ranges[:, 0]) @ selected)
            held_characters += float(held @ marked)
            for position in first_target[document] + np.flatnonzero(marked):
                row, column = divmod(int(position), target.block_size)
                marks[row][column] = True
    return Transfer(
        masks,
        selected_source_tokens=len(positions),
        selected_tokens=sum(int(shard.sum()) for shard in masks),
        selected_characters=round(selected_characters),
        held_characters=held_characters,
        documents_with_selection=len(wanted),
    )


def characters_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a copy of the tokenizer whose offsets hold every character, white space included."""
    backend = copy.deepcopy(plain_text_backend(tokenizer))
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.encode_special_tokens = True
    return backend


def tokenize_again(backend: Tokenizer, texts: Sequence[str]) -> list[TokenizedText]:
    return [
        TokenizedText(
            np.asarray(encoding.ids, dtype=np.int64),
            np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2),
        )
        for encoding in backend.encode_batch(list(texts), add_special_tokens=False)
    ]


def require_same_tokens(corpus: Corpus, document: int, start: int, ids: np.ndarray) -> None:
    rows = range(start // corpus.block_size, -(-(start + len(ids) + 1) // corpus.block_size))
    stored = np.concatenate([corpus.tokens[row] for row in rows])[start % corpus.block_size :]
    expected = np.append(ids, corpus.meta["end_of_text"])
    if not np.array_equal(stored[: len(expected)], expected):
        raise InputError(
            f"{corpus.directory}: document {document} was not tokenized by the tokenizer beside "
            f"it, or is not this text; {remedy(corpus.directory, 'the folder')}"
        )

"""Filters: documents or blocks that are dropped from a corpus, and the corpus without them.

A unit is a source document or a training block. What is dropped is never seen in training: the
tokens that stay are packed into new blocks.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from ifguide.data.corpus import Corpus, TokenStream
from ifguide.data.text_lines import is_unicode, read_lines
from ifguide.errors import InputError

UNITS = ("document", "block")


def read_words(paths: Iterable[Path]) -> list[str]:
    """Return the words and phrases of text files, one a line; empty lines are skipped.

    Raises InputError where no file has one, and for a word that is not UTF-8.
    """
    paths = list(paths)
    words = [line.text.strip() for path in paths for line in read_lines(path) if line.text]
    words = [word for word in words if word]
    if not all(map(is_unicode, words)):
        raise InputError(f"{', '.join(map(str, paths))}: not UTF-8; convert the list to UTF-8")
    if not words:
        raise InputError(f"{', '.join(map(str, paths))}: no word; write one word or phrase a line")
    return words


def listed_words(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function from a text to the listed words in it, in their order."""
    pattern = word_pattern(words)

    def find(text: str) -> list[str]:
        return [" ".join(found[0].split()) for found in pattern.finditer(folded(text))]

    return find


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Return what finds listed words in a `folded` text, the longest first.

    Case is ignored, and so are differences that Unicode calls compatible (NFKC). A word must stand
    alone: where an entry begins or ends with a letter, digit or underscore, no other such character
    may touch it there. A space in a phrase stands for any white space.
    """
    entries = sorted({folded(word).strip() for word in words}, key=lambda word: (-len(word), word))
    return re.compile("|".join(_entry_pattern(entry) for entry in entries))


def folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _entry_pattern(entry: str) -> str:
    spaced = r"\s+".join(re.escape(part) for part in entry.split())
    before = r"(?<!\w)" if re.match(r"\w", entry) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", entry) else ""
    return f"{before}{spaced}{after}"


def block_texts(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, start: int, stop: int
) -> Iterator[str]:
    """Yield the text of blocks [start, stop); a line feed stands for each end of a document."""
    end = corpus.meta["end_of_text"]
    for row in range(start, stop):
        tokens = corpus.tokens[row][corpus.valid(row)]
        parts = np.split(tokens, np.flatnonzero(tokens == end) + 1)
        yield "\n".join(tokenizer.decode(part[part != end].tolist()) for part in parts)


def unit_tokens(corpus: Corpus, unit: str) -> np.ndarray:
    """Return the number of tokens of each unit, padding left out: int64 (units,)."""
    if unit == "block":
        counts = np.full(corpus.meta["blocks"], corpus.block_size, np.int64)
        counts[-1] -= corpus.meta["padding"]
        return counts
    counts = np.zeros(corpus.meta["documents"], np.int64)
    for documents in corpus.documents.shards:
        counts += np.bincount(documents[documents >= 0], minlength=len(counts))
    return counts


def first_of_tokens(tokens: np.ndarray, wanted: float) -> int:
    """Return how many units, in order, are needed to reach so many tokens.

    tokens: int (units,), the tokens of each. The unit that reaches the number is counted.
    """
    before = np.cumsum(tokens) - tokens
    return int((before < wanted).sum())


def removed_tokens(corpus: Corpus, dropped: np.ndarray, unit: str) -> list[np.ndarray]:
    """Return which tokens belong to dropped units, by shard: bool, shape of the tokens.

    dropped: bool (units,). Padding belongs to none.
    """
    first = corpus.tokens.first_rows
    removed = []
    for shard, documents in enumerate(corpus.documents.shards):
        if unit == "block":
            chosen = dropped[first[shard] : first[shard + 1], None]
        else:
            chosen = dropped[np.maximum(documents, 0)]
        removed.append(chosen & (documents >= 0))
    return removed


def kept_streams(corpus: Corpus, removed: Iterable[np.ndarray]) -> Iterator[TokenStream]:
    """Yield the tokens that stay, in order, as runs of one document each, under their own ids."""
    known = corpus.truth_known()
    for shard, gone in enumerate(removed):
        documents = corpus.documents.shards[shard]
        kept = ~gone & (documents >= 0)
        owners, tokens = documents[kept], corpus.tokens.shards[shard][kept]
        truth = corpus.truth.shards[shard][kept] if corpus.truth else np.zeros(len(tokens), bool)
        edges = np.flatnonzero(np.diff(owners)) + 1 if len(owners) else owners
        for start, stop in zip([0, *edges], [*edges, len(owners)], strict=True):
            if start < stop:
                document = int(owners[start])
                spans = truth[start:stop] if known[document] else None
                yield TokenStream(document, tokens[start:stop], spans)

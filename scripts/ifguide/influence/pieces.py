"""Scores and documents of a corpus in pieces, so that a selection does not hold them all."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ifguide.data.corpus import PADDING, Corpus
from ifguide.influence.token_weights import TokenRanking

TOKENS_AT_ONCE = 1 << 18


def candidate_documents(corpus: Corpus, shard: int, rows: slice = slice(None)) -> np.ndarray:
    """Return the documents of a shard's blocks, PADDING where a token is no candidate: (rows, T).

    Special tokens are none: a model that does not learn where a text ends forgets nothing toxic.
    """
    special = corpus.tokens.shards[shard][rows] == corpus.meta["end_of_text"]
    documents = corpus.documents.shards[shard][rows]
    return np.where(special, documents.dtype.type(PADDING), documents)


class Pieces:
    """Scores and documents of a corpus, some blocks at a time, whatever the shards: (blocks, T).

    What is no candidate belongs to no document here, as padding does.

    A piece is made when it is asked for, so that memory does not grow with the corpus.
    """

    def __init__(self, corpus: Corpus, scores: list[np.ndarray], settings: dict) -> None:
        self._corpus, self._scores = corpus, scores
        self.by_block = settings["documents"] == "block"
        self.ranking = TokenRanking(
            scores,
            corpus.tokens.shards,
            corpus.documents.shards,
            settings,
            corpus.meta["vocabulary_size"],
        )
        blocks = max(1, TOKENS_AT_ONCE // corpus.block_size)
        self._parts = [
            (shard, slice(start, min(len(values), start + blocks)))
            for shard, values in enumerate(scores)
            for start in range(0, len(values), blocks)
        ]
        self.scores = OnDemand(len(self._parts), self._piece_scores)
        self.documents = OnDemand(len(self._parts), self._piece_documents)

    def _piece_scores(self, index: int) -> np.ndarray:
        shard, rows = self._parts[index]
        return self.ranking(
            self._scores[shard][rows],
            self._corpus.tokens.shards[shard][rows],
            self._corpus.documents.shards[shard][rows],
        )

    def _source_documents(self, index: int) -> np.ndarray:
        shard, rows = self._parts[index]
        return candidate_documents(self._corpus, shard, rows)

    def _piece_documents(self, index: int) -> np.ndarray:
        """Return the ids that ranking and windows respect: source documents, or blocks."""
        documents = self._source_documents(index)
        if not self.by_block:
            return documents
        first = self._first_block(index)
        blocks = np.arange(first, first + len(documents), dtype=documents.dtype)[:, None]
        return np.where(documents >= 0, blocks, documents)

    def candidates(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Yield scores, source documents and truth of the tokens that may be selected, flat.

        The truth is None where no token is known to be toxic.
        """
        for index, (shard, rows) in enumerate(self._parts):
            documents = self._source_documents(index)
            kept = documents >= 0
            truth = self._corpus.truth
            known = None if truth is None else truth.shards[shard][rows][kept]
            yield self.scores[index][kept], documents[kept], known

    def _first_block(self, index: int) -> int:
        shard, rows = self._parts[index]
        return int(self._corpus.tokens.first_rows[shard]) + rows.start

    def first_blocks(self, count: int) -> np.ndarray:
        """Return the block in which each of `count` documents begins: int, (count,)."""
        if self.by_block:
            return np.arange(count)
        first = np.full(count, -1)
        for index in range(len(self._parts)):
            flat = self._source_documents(index).reshape(-1)
            # A document's tokens stand together, so it begins where the id changes.
            begins = np.flatnonzero(np.diff(flat, prepend=PADDING))
            names = flat[begins]
            new = (names >= 0) & (first[names] < 0)
            first[names[new]] = self._first_block(index) + begins[new] // self._corpus.block_size
        return first

    def of_shards(self) -> Iterator[tuple[tuple[int, int], int]]:
        """Yield the shape of each shard, and how many pieces it consists of."""
        counts = Counter(shard for shard, _ in self._parts)
        for shard, values in enumerate(self._scores):
            yield values.shape, counts[shard]


class OnDemand(Sequence):
    """A sequence whose items are made anew each time that they are asked for."""

    def __init__(self, length: int, make: Callable[[int], np.ndarray]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)

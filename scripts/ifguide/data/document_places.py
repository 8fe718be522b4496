"""Where ranked documents, or blocks, stand in the stream of a corpus's tokens."""

import numpy as np

from ifguide.data.corpus import PADDING, Corpus

_TOKENS_AT_ONCE = 1 << 20


def first_tokens(corpus: Corpus) -> np.ndarray:
    """Return where each document begins in the stream of tokens: int64 (documents + 1,)."""
    counts = np.zeros(corpus.meta["documents"], dtype=np.int64)
    rows = max(1, _TOKENS_AT_ONCE // corpus.block_size)
    for shard in corpus.documents.shards:
        for start in range(0, len(shard), rows):
            numbers = shard[start : start + rows].reshape(-1)
            counts += np.bincount(numbers[numbers != PADDING], minlength=len(counts))
    return np.concatenate([[0], np.cumsum(counts)])


class DocumentPlaces:
    """The place of each document in the stream; with `by_block`, documents are blocks."""

    def __init__(self, corpus: Corpus, by_block: bool) -> None:
        self._block_size = corpus.block_size
        self._tokens = corpus.meta["tokens"]
        self._first = None if by_block else first_tokens(corpus)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return where a document begins and ends, without padding."""
        if self._first is not None:
            return int(self._first[number]), int(self._first[number + 1])
        start = number * self._block_size
        return start, min(start + self._block_size, self._tokens)

"""Rank documents and select the tokens to suppress.

settings: one entry of influence.selections: {"quantile", "window", "limit", "documents",
"unmoved", "pooling", "token_weight", "token_weight_power", "rank_by"}.
"""

import logging
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import PADDING, Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.tables import write_table_in_parts
from ifguide.influence.score_files import open_scores, scores_made_from
from ifguide.influence.selection import DocumentRanking, exact_quantile, select_pieces
from ifguide.influence.selection_files import write_mask_in_parts
from ifguide.influence.token_weights import TokenRanking
from ifguide.workflow.command_line import add_score_arguments, argument_parser, run

log = logging.getLogger(__name__)

TOKENS_AT_ONCE = 1 << 18
ROWS_AT_ONCE = 1 << 12


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    made_from = scores_made_from(arguments.directions, arguments.scored)
    scores = open_scores(arguments.scores, corpus, made_from)
    # A block is scored whole or not at all.
    if any(np.isnan(shard[:, 0]).any() for shard in scores):
        raise InputError(
            "config key influence.scores.blocks: some blocks are not scored, and a selection needs "
            "all of them; set null"
        )
    pieces = Pieces(corpus, scores, settings)
    limit = math.floor(settings["limit"] * corpus.meta["tokens"])
    threshold = exact_quantile(
        lambda: (s[d >= 0] if (d < 0).any() else s for s, d in pieces.with_source_documents()),
        settings["quantile"],
    )
    count = len(corpus.tokens) if pieces.by_block else corpus.meta["documents"]
    masks, ranking, selected = select_pieces(
        pieces.scores,
        pieces.documents,
        threshold=threshold,
        window=settings["window"],
        limit=limit,
        document_count=count,
        by_influence=settings["rank_by"] == "influence",
    )
    total = int(selected.sum())
    log.info("%d of %d tokens selected, threshold %g", total, corpus.meta["tokens"], threshold)
    if total == 0:
        raise InputError(
            "config key influence.selections: the mask selects no token; raise `limit` (now "
            f"{settings['limit']:g} of {corpus.meta['tokens']} tokens) or lower `quantile` (now "
            f"{settings['quantile']:g})"
        )
    mask_record = write_mask_in_parts(arguments.output, pieces.of_shards(), masks)
    write_table_in_parts(
        arguments.output / "documents.csv",
        ranked_documents(ranking, selected, pieces.first_blocks(count)),
    )
    write_json(
        arguments.output / "selection.json",
        {
            "tokens_sha256": corpus.content_sha256,
            "scores_made_from": made_from,
            **mask_record,
            "threshold": threshold,
            "limit_tokens": limit,
            "selected_tokens": total,
            "selected_share": total / corpus.meta["tokens"],
            "documents_with_selection": int((selected > 0).sum()),
            "settings": settings,
        },
    )


def ranked_documents(
    ranking: DocumentRanking, selected: np.ndarray, first_blocks: np.ndarray
) -> Iterator[pd.DataFrame]:
    """Yield the rows of documents.csv by rank, some at a time.

    selected: tokens of each document; first_blocks: the block in which it begins.
    """
    for start in range(0, len(selected), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        documents = ranking.documents[rows]
        table = pd.DataFrame(
            {
                "rank": np.arange(start + 1, start + 1 + len(documents)),
                "document": documents,
                "s": ranking.flagged[rows],
                "f": ranking.flagged_sum[rows],
                "harmonic_mean": ranking.harmonic_mean[rows],
                "selected": selected[documents],
                "first_block": first_blocks[documents],
            }
        )
        if ranking.influence is not None:
            table["influence"] = ranking.influence[rows]
        yield table


class Pieces:
    """Scores and documents of a corpus, some blocks at a time, whatever the shards: (blocks, T).

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
        return self._corpus.documents.shards[shard][rows]

    def _piece_documents(self, index: int) -> np.ndarray:
        """Return the ids that ranking and windows respect: source documents, or blocks."""
        documents = self._source_documents(index)
        if not self.by_block:
            return documents
        first = self._first_block(index)
        blocks = np.arange(first, first + len(documents), dtype=np.int32)[:, None]
        return np.where(documents >= 0, blocks, np.int32(PADDING))

    def with_source_documents(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, scores in enumerate(self.scores):
            yield scores, self._source_documents(index)

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


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    add_score_arguments(parser)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

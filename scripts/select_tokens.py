"""Rank documents and select the tokens to suppress.

settings: one entry of influence.selections: {"quantile", "window", "limit", "documents",
"unmoved", "pooling", "token_weight", "token_weight_power", "rank_by"}.
"""

import logging
import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.tables import write_table_in_parts
from ifguide.influence.pieces import Pieces
from ifguide.influence.score_files import open_scores, scores_made_from
from ifguide.influence.selection import DocumentRanking, exact_quantile, select_pieces
from ifguide.influence.selection_files import write_mask_in_parts
from ifguide.workflow.command_line import add_score_arguments, argument_parser, run

log = logging.getLogger(__name__)

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


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    add_score_arguments(parser)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

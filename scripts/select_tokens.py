"""Rank documents and select the tokens to suppress.

settings: one entry of influence.selections: {"quantile", "window", "limit", "documents",
"unmoved", "pooling", "pool_over", "token_weight", "token_weight_power", "rank_by"}, and
"harmless_sources": the names of the sources whose tokens are known to be harmless, where they are
the decoys.
"""

from ifguide.workflow.command_line import add_score_arguments, argument_parser, run

import logging
import math
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json, require_same, stream_jsonl, write_json
from ifguide.files.checksums import verified_sha256
from ifguide.files.tables import write_table, write_table_in_parts
from ifguide.influence.false_discoveries import count_tails, threshold_at
from ifguide.influence.pieces import Pieces
from ifguide.influence.score_files import open_scores, scores_made_from
from ifguide.influence.selection import (
    DocumentRanking,
    exact_quantile,
    select_pieces,
    threshold_of_highest,
)
from ifguide.influence.selection_files import write_mask_in_parts

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 1 << 12
# Scores of ordinary size that lie on one side so many times more often are not called symmetric.
ASYMMETRY = 1.25
# The decoy curve is drawn up to this share of the tokens, by so many points.
LARGEST_SHARE, POINTS = 0.1, 200


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
    curve, symmetry = decoy_curve(pieces, corpus, settings, arguments.documents)
    equal = equal_tokens(arguments.tokens_of, corpus)
    threshold, limit = threshold_and_limit(pieces, curve, symmetry, corpus, settings, equal)
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
            f"{settings['limit']} of {corpus.meta['tokens']} tokens) or lower `quantile` (now "
            f"{settings['quantile']:g})"
        )
    mask_record = write_mask_in_parts(arguments.output, pieces.of_shards(), masks)
    write_table_in_parts(
        arguments.output / "documents.csv",
        ranked_documents(ranking, selected, pieces.first_blocks(count)),
    )
    write_table(arguments.output / "decoys.csv", thin_decoy_curve(curve, corpus.meta["tokens"]))
    write_json(
        arguments.output / "selection.json",
        {
            "tokens_sha256": corpus.content_sha256,
            "scores_made_from": made_from,
            **mask_record,
            "threshold": threshold,
            "limit_tokens": limit,
            "false_discovery_rate": rate_of(curve, threshold),
            # JSON has no number for scores that lie on one side alone, or are all 0.
            "negative_over_positive": symmetry if math.isfinite(symmetry) else None,
            "selected_tokens": total,
            "selected_share": total / corpus.meta["tokens"],
            "documents_with_selection": int((selected > 0).sum()),
            "settings": settings,
        },
    )


def decoy_curve(
    pieces: Pieces, corpus: Corpus, settings: dict, documents: Path
) -> tuple[pd.DataFrame, float]:
    """Return the estimated false discoveries at every threshold, and the scores' symmetry."""
    harmless = documents_of(documents, settings["harmless_sources"], corpus)
    known = corpus.truth_known()
    tails = count_tails(
        {
            "scores": scores,
            "truth": truth,
            "known": known[owners],
            "harmless": None if harmless is None else harmless[owners],
        }
        for scores, owners, truth in pieces.candidates()
    )
    return tails.curve(by_harmless=harmless is not None), tails.symmetry()


def documents_of(path: Path, sources: list[str], corpus: Corpus) -> np.ndarray | None:
    """Return which documents are of the named sources, bool (documents,); None without a name."""
    if not sources:
        return None
    require_same("documents", corpus.meta["documents_sha256"], verified_sha256(path), path)
    found = np.zeros(corpus.meta["documents"], bool)
    for record in stream_jsonl(path):
        found[record["document"]] = record["source"] in sources
    return found


def equal_tokens(record: Path | None, corpus: Corpus) -> int | None:
    """Return how many tokens another selection of the same corpus takes, by its record."""
    if record is None:
        return None
    other = read_json(record)
    require_same("tokens", corpus.content_sha256, other["tokens_sha256"], record)
    return other["selected_tokens"]


def threshold_and_limit(
    pieces: Pieces,
    curve: pd.DataFrame,
    symmetry: float,
    corpus: Corpus,
    settings: dict,
    equal: int | None,
) -> tuple[float, int]:
    """Return the score above which a token is flagged, and the most tokens that are selected.

    equal: as many as another selection takes, where that is the limit.
    """
    tokens, limit = corpus.meta["tokens"], settings["limit"]
    if equal is not None:
        threshold = threshold_of_highest(
            lambda: (scores for scores, _, _ in pieces.candidates()), equal
        )
        if threshold < 0:
            log.warning(
                "fewer than %d tokens score above 0; the others are those of the documents ranked "
                "first",
                equal,
            )
        return threshold, equal
    if not isinstance(limit, dict):
        threshold = exact_quantile(
            lambda: (scores for scores, _, _ in pieces.candidates()), settings["quantile"]
        )
        return threshold, math.floor(limit * tokens)
    threshold = threshold_at(curve, limit["false_discovery_rate"])
    if threshold is None:
        lowest = "there is no positive score"
        if len(curve):
            lowest = f"the lowest is {curve['rate'].min():.2g}"
        raise InputError(
            "config key influence.selections: no threshold keeps to the false discovery rate "
            f"{limit['false_discovery_rate']:g} ({lowest}): the scores tell too little apart; "
            "raise `pooling`, ask more queries, or give `limit` as a share of the tokens"
        )
    if limit["decoys"] == "negative" and not 1 / ASYMMETRY <= symmetry <= ASYMMETRY:
        log.warning(
            "scores of ordinary size are negative %.1f times as often as positive: not symmetric "
            "about 0, so that the estimated false discovery rate is too %s",
            symmetry,
            "high, and fewer are false" if symmetry > 1 else "low, and more are false",
        )
    return threshold, tokens


def rate_of(curve: pd.DataFrame, threshold: float) -> float | None:
    """Return the estimate for the tokens above a threshold; None where no score is above it."""
    beyond = curve[curve["threshold"] >= threshold]
    return None if beyond.empty or threshold <= 0 else float(beyond["rate"].iloc[0])


def thin_decoy_curve(curve: pd.DataFrame, tokens: int) -> pd.DataFrame:
    """Return some points of the curve, evenly spread over the tokens taken, for a figure."""
    shares = np.geomspace(1 / tokens, LARGEST_SHARE, POINTS)
    descending = curve.iloc[::-1]
    places = np.searchsorted(descending["taken"].to_numpy(), shares * tokens)
    kept = descending.iloc[np.unique(places[places < len(descending)])]
    return kept.assign(share=kept["taken"] / tokens)


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
    parser.add_argument("--documents", type=Path, help="of the corpus, where sources are decoys")
    parser.add_argument("--tokens-of", type=Path, help="record of a selection of as many tokens")
    add_score_arguments(parser)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

"""Rank documents and select the tokens to suppress.

settings: one entry of influence.selections: {"quantile", "window", "limit", "documents",
"pooling", "token_weight", "token_weight_power", "rank_by"}.
"""

import logging
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from command_line import argument_parser, run
from ifguide.artifacts import (
    atomic_path,
    canonical_json,
    open_array,
    read_json,
    require_same,
    text_sha256,
    write_json,
)
from ifguide.corpus import PADDING, Corpus, open_corpus
from ifguide.errors import InputError
from ifguide.selection import exact_quantile, select_shards
from ifguide.selection_files import write_mask
from ifguide.token_weights import ranking_scores

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    scores, record = open_scores(arguments.scores, corpus)
    if any(np.isnan(shard).any() for shard in scores):
        raise InputError(
            "config key influence.scores.blocks: some blocks are not scored, and a selection needs "
            "all of them; set null"
        )
    scores = ranking_scores(
        scores,
        corpus.tokens.shards,
        corpus.documents.shards,
        settings,
        corpus.meta["vocabulary_size"],
    )
    documents = document_ids(corpus, settings["documents"])
    limit = math.floor(settings["limit"] * corpus.meta["tokens"])
    threshold = exact_quantile(
        lambda: (s[d >= 0] for s, d in zip(scores, corpus.documents.shards, strict=True)),
        settings["quantile"],
    )
    by_block = settings["documents"] == "block"
    count = len(corpus.tokens) if by_block else corpus.meta["documents"]
    masks, ranking, selected = select_shards(
        scores,
        documents,
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
    mask_record = write_mask(arguments.output, masks)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, count + 1),
            "document": ranking.documents,
            "s": ranking.flagged,
            "f": ranking.flagged_sum,
            "harmonic_mean": ranking.harmonic_mean,
            "selected": selected[ranking.documents],
            "first_block": first_blocks(corpus, count, by_block)[ranking.documents],
        }
    )
    if ranking.influence is not None:
        table["influence"] = ranking.influence
    with atomic_path(arguments.output / "documents.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_json(
        arguments.output / "selection.json",
        {
            **record,
            "tokens_sha256": corpus.content_sha256,
            **mask_record,
            "threshold": threshold,
            "limit_tokens": limit,
            "selected_tokens": total,
            "selected_share": total / corpus.meta["tokens"],
            "documents_with_selection": int((selected > 0).sum()),
            "settings": settings,
        },
    )


def open_scores(paths: list[Path], corpus: Corpus) -> tuple[list[np.ndarray], dict]:
    """Open all score shards; refuse those of another corpus, model, direction or setting."""
    first: dict = {}
    shards = []
    for path in paths:
        record = read_json(path.with_suffix(".json"))
        first = first or record
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], path)
        for name in ("weights", "direction"):
            require_same(name, first[f"{name}_sha256"], record[f"{name}_sha256"], path)
        settings, others = (text_sha256(canonical_json(r["settings"])) for r in (first, record))
        require_same("settings", settings, others, path)
        shards.append(open_array(path, record["scores_sha256"]))
    return shards, {name: first[f"{name}"] for name in ("weights_sha256", "direction_sha256")}


def document_ids(corpus: Corpus, kind: str) -> list[np.ndarray]:
    """Return the ids that ranking and windows respect: source documents, or training blocks."""
    if kind == "source":
        return corpus.documents.shards
    first = corpus.tokens.first_rows[:-1]
    return [
        np.where(
            documents >= 0,
            (start + np.arange(len(documents), dtype=np.int32))[:, None],
            np.int32(PADDING),
        )
        for start, documents in zip(first, corpus.documents.shards, strict=True)
    ]


def first_blocks(corpus: Corpus, count: int, by_block: bool) -> np.ndarray:
    if by_block:
        return np.arange(count)
    first = np.full(count, -1)
    for start, documents in zip(
        corpus.tokens.first_rows[:-1], corpus.documents.shards, strict=True
    ):
        names, positions = np.unique(documents, return_index=True)
        new = (names >= 0) & (first[names] < 0)
        first[names[new]] = start + positions[new] // corpus.block_size
    return first


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

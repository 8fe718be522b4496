"""Drop documents or blocks from a corpus, and pack what stays into a corpus of its own.

settings: {"filter": {"unit": "document" or "block"} for --words, {"unit", "threshold"} for
--scores, {"share"} for --selection; "method": str}.
"""

import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from command_line import argument_parser, run
from ifguide.data.corpus import Corpus, open_corpus, write_blocks
from ifguide.data.filtering import (
    block_texts,
    first_of_share,
    kept_streams,
    read_words,
    removal_quality,
    removed_tokens,
    unit_tokens,
    word_finder,
)
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.files.artifacts import open_array, read_json, require_same, stream_jsonl, write_json
from ifguide.files.checksums import verified_sha256
from ifguide.files.tables import read_table, write_table

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings["filter"]
    corpus = open_corpus(arguments.corpus)
    if arguments.words:
        unit, reasons = settings["unit"], dict(units_with_words(arguments, corpus))
    elif arguments.scores:
        unit, reasons = settings["unit"], dict(toxic_units(arguments, corpus))
    else:
        unit, reasons = ranked_units(arguments, corpus)
    tokens = unit_tokens(corpus, unit)
    dropped = np.zeros(len(tokens), bool)
    dropped[list(reasons)] = True
    if dropped.all() or not dropped.any():
        raise InputError(
            f"config key methods.{arguments.settings['method']}.filter: it drops "
            f"{'every' if dropped.any() else 'no'} {unit} of {len(tokens)}; "
            + ("loosen" if dropped.any() else "tighten")
            + " it, or leave the method out of evaluation.methods"
        )
    removed = removed_tokens(corpus, dropped, unit)
    meta = write_blocks(
        kept_streams(corpus, removed),
        arguments.output,
        block_size=corpus.block_size,
        shards=len(corpus.meta["shards"]),
        vocabulary_size=corpus.meta["vocabulary_size"],
        end_of_text=corpus.meta["end_of_text"],
        truth=corpus.truth is not None,
    )
    # Documents keep their ids, so that the number of ids is that of the whole corpus.
    meta["documents"] = corpus.meta["documents"]
    for name in ("documents_sha256", "tokenizer_sha256"):
        meta[name] = corpus.meta[name]
    ids = np.flatnonzero(dropped)
    table = pd.DataFrame(
        {unit: ids, "tokens": tokens[ids], "reason": [reasons[number] for number in ids]}
    )
    write_table(arguments.output / "dropped.csv", table)
    record = {
        "unit": unit,
        "units": len(tokens),
        "dropped_units": int(dropped.sum()),
        "tokens": corpus.meta["tokens"],
        "dropped_tokens": int(tokens[dropped].sum()),
        "unfiltered_tokens_sha256": corpus.content_sha256,
        "tokens_sha256": meta["content_sha256"],
        "quality": removal_quality(corpus, removed),
        "settings": settings,
    }
    log.info(
        "%(dropped_units)d of %(units)d %(unit)ss dropped, %(dropped_tokens)d of %(tokens)d tokens",
        record,
    )
    write_json(arguments.output / "filter.json", record)
    write_json(arguments.output / "meta.json", meta)


def units_with_words(arguments: Namespace, corpus: Corpus) -> Iterator[tuple[int, str]]:
    """Yield the units that contain a listed word, and the word."""
    find = word_finder(read_words(arguments.words))
    if arguments.settings["filter"]["unit"] == "block":
        tokenizer = load_tokenizer(arguments.tokenizer)
        texts = enumerate(block_texts(corpus, tokenizer, 0, corpus.meta["blocks"]))
    else:
        require_same(
            "documents",
            corpus.meta["documents_sha256"],
            verified_sha256(arguments.documents),
            arguments.documents,
        )
        records = stream_jsonl(arguments.documents)
        texts = ((record["document"], record["text"]) for record in records)
    for number, text in texts:
        if word := find(text):
            yield number, f"word: {word}"


def toxic_units(arguments: Namespace, corpus: Corpus) -> Iterator[tuple[int, str]]:
    """Yield the units that the classifier calls toxic, and how toxic."""
    settings = arguments.settings["filter"]
    shards = []
    for path in arguments.scores:
        record = read_json(path.with_suffix(".json"))
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], path)
        shards.append(open_array(path))
    scores = np.concatenate(shards)
    for number in np.flatnonzero(scores >= settings["threshold"]):
        yield int(number), f"toxicity {scores[number]:.3f}"


def ranked_units(arguments: Namespace, corpus: Corpus) -> tuple[str, dict[int, str]]:
    """Return the unit that a selection ranks, and its first units up to the share of tokens.

    A unit that nothing speaks against is never dropped: one without a flagged token or, where
    influence ranks, without positive influence.
    """
    record = read_json(arguments.selection / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], arguments.selection)
    unit = "block" if record["settings"]["documents"] == "block" else "document"
    ranking = read_table(arguments.selection / "documents.csv")
    against = ranking["influence" if "influence" in ranking else "s"] > 0
    ranked = ranking[against]
    counts = unit_tokens(corpus, unit)[ranked["document"]]
    share = arguments.settings["filter"]["share"]
    count = first_of_share(counts, corpus.meta["tokens"], share)
    first = ranked.head(count)
    return unit, {int(row.document): f"rank {row.rank}" for row in first.itertuples(index=False)}


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--words", type=Path, nargs="+", help="files of words, one a line")
    kinds.add_argument("--scores", type=Path, nargs="+", help="toxicity of the units")
    kinds.add_argument("--selection", type=Path, help="folder of a selection")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

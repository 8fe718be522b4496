"""Make the corpus that a method trains on: what its data step keeps, packed into blocks of its own.

settings: {"steps": {key: options} of the data step, "method": str}. --given: what the step needs,
{key: {need: paths}}.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import open_corpus, write_blocks
from ifguide.data.filtering import kept_streams, removed_tokens, unit_tokens
from ifguide.data.removal import removal_quality
from ifguide.errors import InputError
from ifguide.files.artifacts import write_json
from ifguide.files.tables import write_table
from ifguide.methods.step import CorpusJob, given_of, step_at

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    step = step_at(settings["steps"], "data")
    job = CorpusJob(corpus, arguments.documents, arguments.tokenizer)
    found = step.keep(job, given_of(step, arguments.given))
    unit, reasons = found.unit, found.reasons
    tokens = unit_tokens(corpus, unit)
    dropped = np.zeros(len(tokens), bool)
    dropped[list(reasons)] = True
    if dropped.all() or not dropped.any():
        raise InputError(
            f"config key methods.{settings['method']}.{step.key()}: it drops "
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
    write_json(arguments.output / "dropped.json", record)
    write_json(arguments.output / "meta.json", meta)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

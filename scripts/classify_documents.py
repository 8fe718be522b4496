"""Toxicity of one shard of documents or blocks by one judge, for a filter.

A judge that was trained here comes with a calibration. Without one, its scores are taken as they
are, and the record says so.

settings: {"unit": "document" or "block", "shards": int, "classifier": name of the judge, "given":
what opens it, as of `evaluation.judge_forms.open_judge`}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ifguide.data.corpus import BLOCKS_PER_GROUP, open_corpus, shard_bounds
from ifguide.data.filtering import block_texts
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.calibration import Calibration
from ifguide.evaluation.judge_forms import open_judge
from ifguide.evaluation.piece_statistics import COLUMNS, piece_statistics
from ifguide.files.artifacts import read_json, require_same, stream_jsonl, write_array, write_json
from ifguide.files.checksums import file_sha256

log = logging.getLogger(__name__)


def document_texts(path: Path, start: int, stop: int) -> Iterator[str]:
    """Yield the texts of documents [start, stop), which are numbered in the order of the file."""
    return (record["text"] for record in islice(stream_jsonl(path), start, stop))


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    require_same(
        "documents",
        corpus.meta["documents_sha256"],
        file_sha256(arguments.documents),
        arguments.documents,
    )
    unit = settings["unit"]
    start, stop = shard_bounds(corpus.meta[f"{unit}s"], settings["shards"])[arguments.shard]
    if unit == "block":
        texts = block_texts(corpus, load_tokenizer(arguments.tokenizer), start, stop)
    else:
        texts = document_texts(arguments.documents, start, stop)
    judge = open_judge(settings["classifier"], settings["given"])
    # Shards hold whole groups, so the batches, and the scores' bits, are those of one shard.
    calibration = Calibration()
    if arguments.calibration:
        calibration = Calibration(**read_json(arguments.calibration))
    scores: list[np.ndarray] = []
    while group := list(islice(texts, BLOCKS_PER_GROUP)):
        pieces = map(calibration.probabilities, judge.piece_scores(group))
        scores += map(piece_statistics, pieces)
    log.info("%ss %d to %d scored", unit, start, stop)
    write_array(arguments.output, np.array(scores, np.float32).reshape(-1, len(COLUMNS)))
    write_json(
        arguments.output.with_suffix(".json"),
        {
            "unit": unit,
            "columns": COLUMNS,
            "calibration": calibration.method,
            "tokens_sha256": corpus.content_sha256,
        },
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--calibration", type=Path, help="of a judge that was trained here")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

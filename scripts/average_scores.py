"""Mean token scores of several directions.

settings: {"directions": names in the order of the scores, "normalise": bool}. --scores gives all
shards of the first direction, then all of the second, …; --output one path a shard.
"""

import hashlib
import logging
from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.artifacts import read_json, write_array, write_json
from ifguide.corpus import open_corpus
from ifguide.score_averages import mean_scores, root_mean_square
from select_tokens import open_scores

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    shards = len(arguments.output)
    paths = [
        arguments.scores[start : start + shards]
        for start in range(0, len(arguments.scores), shards)
    ]
    opened = [open_scores(own, corpus) for own in paths]
    scales = [1.0] * len(opened)
    if settings["normalise"]:
        scales = [root_mean_square(scores) for scores, _ in opened]
    for name, scale in zip(settings["directions"], scales, strict=True):
        log.info("%s: scores are divided by %.3g", name, scale)
    record = {
        name: _joined(record[name] for _, record in opened)
        for name in ("weights_sha256", "direction_sha256")
    }
    blocks = read_json(arguments.scores[0].with_suffix(".json"))["settings"]["scores"]["blocks"]
    for shard, output in enumerate(arguments.output):
        mean = mean_scores([scores[shard] for scores, _ in opened], scales)
        write_json(
            output.with_suffix(".json"),
            {
                **record,
                "scores_sha256": write_array(output, mean),
                "tokens_sha256": corpus.content_sha256,
                "scales": dict(zip(settings["directions"], scales, strict=True)),
                "settings": {**settings, "scores": {"blocks": blocks}},
            },
        )


def _joined(checksums) -> str:
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    run(main, parser)

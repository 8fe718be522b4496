"""Mean token scores of several directions.

settings: {"directions": names in the order of the scores, "normalise": bool}. --scores gives all
shards of the first direction, then all of the second, …; --directions the file of each; --output
one path a shard.
"""

from ifguide.workflow.command_line import add_score_arguments, argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import open_corpus
from ifguide.files.artifacts import write_array, write_json
from ifguide.files.checksums import RecordedTogether
from ifguide.influence.score_averages import mean_scores, root_mean_square
from ifguide.influence.score_files import open_scores, scores_made_from

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    shards = len(arguments.output)
    paths = [
        arguments.scores[start : start + shards]
        for start in range(0, len(arguments.scores), shards)
    ]
    opened = [
        open_scores(own, corpus, scores_made_from([direction], arguments.scored))
        for own, direction in zip(paths, arguments.directions, strict=True)
    ]
    scales = [1.0] * len(opened)
    if settings["normalise"]:
        scales = [root_mean_square(scores) for scores in opened]
    for name, scale in zip(settings["directions"], scales, strict=True):
        log.info("%s: scores are divided by %.3g", name, scale)
    made_with = {
        **settings,
        "attribution": arguments.scored["attribution"],
        "scores": {"blocks": arguments.scored["scores"]["blocks"]},
    }
    made_from = scores_made_from(arguments.directions, made_with)
    with RecordedTogether(arguments.output) as together:
        for shard, output in enumerate(arguments.output):
            mean = mean_scores([scores[shard] for scores in opened], scales)
            write_array(output, mean, together.publish)
    for output in arguments.output:
        write_json(
            output.with_suffix(".json"),
            {
                **{name: made_from[name] for name in ("weights_sha256", "direction_sha256")},
                "tokens_sha256": corpus.content_sha256,
                "scales": dict(zip(settings["directions"], scales, strict=True)),
                "settings": made_with,
            },
        )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    add_score_arguments(parser)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    run(main, parser)

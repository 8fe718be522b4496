"""What a method keeps from the model, against the tokens that are known to be toxic.

The corpus is counted whole, not sampled, so the figures have no intervals.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.corpus import open_corpus
from ifguide.data.removal import removal_quality
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.intervals import Interval
from ifguide.files.artifacts import read_json, require_same, write_json
from ifguide.influence.selection_files import open_mask


def main(arguments: Namespace) -> None:
    corpus = open_corpus(arguments.corpus)
    if arguments.dropped:
        record = read_json(arguments.dropped)
        expected = record["unfiltered_tokens_sha256"]
        require_same("tokens", corpus.content_sha256, expected, arguments.dropped)
        quality = record["quality"]
    elif arguments.mask:
        quality = removal_quality(corpus, open_mask(arguments.mask, corpus)[0].shards)
    else:
        quality = removal_quality(corpus, corpus.truth.shards)
    nothing = float("nan")
    write_json(
        arguments.output,
        {
            "benchmark": "removal",
            "model": arguments.model,
            "method": arguments.method,
            "seed": arguments.training_seed,
            "rows": [
                metric_row("all", name, Interval(value, nothing, nothing), corpus.meta["tokens"])
                for name, value in quality.items()
                if value is not None
            ],
        },
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--dropped", type=Path, help="dropped.json of a corpus made by a data step")
    kinds.add_argument("--mask", type=Path, help="folder of a selection")
    kinds.add_argument("--truth", action="store_true", help="the tokens known to be toxic")
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

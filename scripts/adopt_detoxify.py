"""Make published Detoxify weights load offline: what they need is written beside them."""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.evaluation.classifiers import adopt_detoxify
from ifguide.evaluation.detoxify_judge import DetoxifyJudge


def main(arguments: Namespace) -> None:
    adopt_detoxify(arguments.weights, arguments.base, arguments.output)
    # A file that cannot be used shall be known now, not when everything is trained.
    DetoxifyJudge(arguments.output).predict(["a text"])


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint as published")
    parser.add_argument("--base", type=Path, required=True, help="directory of its base model")
    parser.add_argument("--output", type=Path, required=True, help="model.ckpt")
    run(main, parser)

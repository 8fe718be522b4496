"""A linear probe of toxicity on the activations of labelled texts."""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.tensor_files import read_tensors, write_tensors
from ifguide.models.probe import fit_probe


def main(arguments: Namespace) -> None:
    activations, record = read_tensors(arguments.activations)
    write_tensors(arguments.output, fit_probe(activations), record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--activations", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

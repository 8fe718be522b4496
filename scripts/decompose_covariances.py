"""Add the covariances of all shards and decompose them into eigenbases."""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.tensor_files import write_tensors
from ifguide.influence.ekfac import eigenbases
from ifguide.influence.factor_pass import basis_tensors, read_total


def main(arguments: Namespace) -> None:
    sums, metadata = read_total(arguments.covariances)
    tensors = basis_tensors(eigenbases(sums))
    write_tensors(
        arguments.output, {name: tensor.float() for name, tensor in tensors.items()}, metadata
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--covariances", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

"""Add the covariances of all shards and decompose them into eigenbases."""

from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from factor_pass import basis_tensors, require_same_source
from ifguide.ekfac import eigenbases, merge
from ifguide.tensor_files import read_tensors, write_tensors


def main(arguments: Namespace) -> None:
    shards = [read_tensors(path) for path in arguments.covariances]
    metadata = shards[0][1]
    for path, (_, other) in zip(arguments.covariances, shards, strict=True):
        require_same_source(metadata, other, path)
    sums = merge(tensors for tensors, _ in shards)
    tensors = basis_tensors(eigenbases(sums))
    write_tensors(
        arguments.output, {name: tensor.float() for name, tensor in tensors.items()}, metadata
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--covariances", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

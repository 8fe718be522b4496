"""Add the corrected eigenvalues of all shards and join them with the eigenbases."""

from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from factor_pass import basis_tensors, read_bases, require_same_source
from ifguide.ekfac import layer_factors, merge
from ifguide.tensor_files import read_tensors, write_tensors


def main(arguments: Namespace) -> None:
    bases, metadata = read_bases(arguments.eigenbases)
    shards = [read_tensors(path) for path in arguments.eigenvalues]
    for path, (_, other) in zip(arguments.eigenvalues, shards, strict=True):
        require_same_source(metadata, other, path)
    factors = layer_factors(bases, merge(tensors for tensors, _ in shards))
    tensors = basis_tensors(bases)
    for name, layer in factors.items():
        tensors[f"{name}.eigenvalues"] = layer.eigenvalues
    write_tensors(arguments.output, tensors, metadata)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--eigenbases", type=Path, required=True)
    parser.add_argument("--eigenvalues", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

"""Add the corrected eigenvalues of all shards and join them with the eigenbases."""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.tensor_files import write_tensors
from ifguide.influence.ekfac import layer_factors
from ifguide.influence.factor_pass import basis_tensors, read_bases, read_total


def main(arguments: Namespace) -> None:
    bases, metadata = read_bases(arguments.eigenbases)
    sums, _ = read_total(arguments.eigenvalues, metadata)
    tensors = basis_tensors(bases)
    for name, layer in layer_factors(bases, sums).items():
        tensors[f"{name}.eigenvalues"] = layer.eigenvalues
    write_tensors(arguments.output, tensors, metadata)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--eigenbases", type=Path, required=True)
    parser.add_argument("--eigenvalues", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

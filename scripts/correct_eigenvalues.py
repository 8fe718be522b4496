"""Eigenvalue correction pass over one shard of the sampled blocks.

settings: {"factors": {"blocks", "shards", "labels", "batch_size", …}, "seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.influence.ekfac import eigenvalue_sums
from ifguide.influence.factor_pass import (
    add_pass_arguments,
    open_pass,
    read_bases,
    require_same_source,
)


def main(arguments: Namespace) -> None:
    shard = open_pass(arguments)
    bases, metadata = read_bases(arguments.eigenbases)
    require_same_source(shard.metadata, metadata, arguments.eigenbases)
    shard.write_sums(
        arguments.output,
        lambda batches: eigenvalue_sums(shard.model, shard.layers, bases, batches, **shard.options),
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    add_pass_arguments(parser)
    parser.add_argument("--eigenbases", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

"""Tabulate what lasts of methods: steps of relearning to the uncensored level, compute slowdown.

settings: {"decoded": compared methods without a model of their own}. --relearning and --curves: of
every model, method and seed, and of every model and seed.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.files.artifacts import read_json, write_text
from ifguide.files.tables import write_table
from ifguide.report.lasting_table import lasting_page, lasting_table


def main(arguments: Namespace) -> None:
    relearning = [read_json(path) for path in arguments.relearning]
    curves = [read_json(path) for path in arguments.curves]
    table = lasting_table(relearning, curves, arguments.settings["decoded"])
    write_table(arguments.output, table)
    write_text(arguments.page, lasting_page(table))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--relearning", type=Path, nargs="+", required=True)
    parser.add_argument("--curves", type=Path, nargs="*", default=[])
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

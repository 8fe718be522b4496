"""Read the pairs of one method that is trained on preferences.

settings: {"pairs": {"format", "part", "limit"}, "seed": int}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from ifguide.data.file_lists import from_arguments
from ifguide.data.preferences import read_pairs
from ifguide.files.artifacts import write_json, write_jsonl

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    files = from_arguments(arguments.files)
    pairs, report = read_pairs(settings["pairs"], files, settings["seed"])
    log.info("%s", report)
    write_json(arguments.report, report)
    write_jsonl(arguments.output, (asdict(pair) for pair in pairs))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--files", nargs="+", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

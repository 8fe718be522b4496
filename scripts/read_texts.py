"""Read the labelled texts that methods, judges or reward models learn from.

settings: {"sources": [...], "limit": at most so many toxic and so many nontoxic ones, or null,
"seed": int}; --files gives one JSON list of paths a source.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
from argparse import Namespace
from pathlib import Path

from ifguide.data.file_lists import from_arguments
from ifguide.data.labelled_texts import TOXIC, balanced
from ifguide.data.prompts import read_labelled
from ifguide.files.artifacts import write_json, write_jsonl

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    files = [from_arguments(given) for given in arguments.files]
    labelled = read_labelled(settings["sources"], files, settings["seed"])
    kept = balanced(labelled, settings["limit"], settings["seed"])
    report = {
        "found": len(labelled),
        "kept": len(kept),
        "toxic": sum(text.label >= TOXIC for text in kept),
    }
    log.info("%s", report)
    write_json(arguments.report, report)
    write_jsonl(arguments.output, (text._asdict() for text in kept))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--files", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

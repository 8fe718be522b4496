"""Fetch pinned files of a hub model or data set; right files that are there already are taken.

settings: {"kind": "model" or "dataset", "hub", "revision", "files": [patterns]}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.repositories import Repository, fetch_repository
from ifguide.files.artifacts import write_json


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    repository = Repository(**settings | {"files": tuple(settings["files"])})
    hashes = fetch_repository(repository, arguments.directory, arguments.instead)
    write_json(arguments.output, {**settings, "sha256": hashes})


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--instead", required=True, help="how to do without the hub, for the error")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

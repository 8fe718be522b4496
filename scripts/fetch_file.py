"""Fetch one public file, checked by its SHA-256; a right file that is there already is taken.

settings: {"url", "sha256"}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.downloads import download
from ifguide.files.artifacts import write_json


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    download(settings["url"], arguments.path, settings["sha256"])
    write_json(
        arguments.output,
        {**settings, "path": str(arguments.path), "bytes": arguments.path.stat().st_size},
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)

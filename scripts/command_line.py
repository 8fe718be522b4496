"""What every script shares: arguments, logging to stderr, and errors of one line."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable

from ifguide.artifacts import is_out_of_space
from ifguide.errors import InputError


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--settings`: a JSON object of the config sections that a rule uses."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON")
    return parser


def labelled_path(argument: str) -> tuple[str, str]:
    """Split `label=path`, an argument that names what it gives."""
    label, equals, path = argument.partition("=")
    if not equals:
        raise InputError(f"{argument}: give a label and a file as label=path")
    return label, path


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse, log to stderr, call `main`; an InputError becomes one line and exit status 1."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # The libraries below log every HTTP request and every weight they initialise at INFO.
    for chatty in ("httpx2", "httpcore2", "transformers", "matplotlib", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    arguments = parser.parse_args()
    try:
        main(arguments)
    except InputError as error:
        # Processes that torchrun started all find the same mistake; one of them tells it.
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if not is_out_of_space(error):
            raise
        print(
            f"error: no space left on the device ({error}); make room and run again",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None

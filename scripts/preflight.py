"""Open everything that a config names, before the first long job, and tell every fault.

settings: the whole config. Prints a line for each fault and ends with 1, or one line that says
that there is none. With --passed, a file that remembers what was found sound: as long as neither
the config nor a file that it names has changed, nothing is opened again.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
import sys
import time
from argparse import Namespace
from pathlib import Path

import transformers

from ifguide.files.artifacts import write_text
from ifguide.workflow.parts import open_experiment
from ifguide.workflow.preflight import Preflight, shown


def main(arguments: Namespace) -> None:
    started = time.monotonic()
    # What loads without a fault has nothing to say here, and what does not is told below.
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    preflight = Preflight(open_experiment(arguments.settings))
    preflight.run()
    lines = shown(preflight, time.monotonic() - started)
    if preflight.findings:
        print("\n".join(lines), file=sys.stderr)
        raise SystemExit(1)
    print("\n".join(lines))
    if arguments.passed:
        write_text(arguments.passed, arguments.state + "\n")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--passed", type=Path, help="hidden file, written where nothing is wrong")
    parser.add_argument("--state", default="", help="what that file is to hold")
    run(main, parser)

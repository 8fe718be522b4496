"""What every script shares: a quick start, arguments, logging to stderr, and errors of one line.

Scripts import it before all else.
"""

import argparse
import atexit
import contextlib
import ctypes
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import is_out_of_space
from ifguide.files.locks import sole_writer

# Importing PyTorch and transformers makes a million objects, none of which is garbage before the
# process ends. Looking for some among them takes as long as half of the imports: `run` begins it.
COLLECTION_THRESHOLDS = gc.get_threshold()
gc.set_threshold(1_000_000, *COLLECTION_THRESHOLDS[1:])

# oneDNN keeps the code that it made for each of 1,024 shapes, 256 KiB each: of texts of ever other
# lengths none is used again. A few are enough for the layers of a model.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

# Parameters of glibc's mallopt, and the largest array that it lets a heap hold.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP_ARRAY_BYTES = 32 * 2**20


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--settings`: a JSON object of the config sections that a rule uses."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON")
    return parser


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the score shards that a script reads, and what they have to be made from."""
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--directions", type=Path, nargs="+", required=True, help="several for an average"
    )
    parser.add_argument(
        "--scored", type=json.loads, required=True, metavar="JSON", help="settings of the scores"
    )


def add_kept_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks of a job, an output for each, and the code that makes them.

    What a job keeps is by the same code (`files.kept`).
    """
    parser.add_argument("--benchmarks", nargs="+", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    parser.add_argument("--code", default="", help="digest of the code that the outputs depend on")


def divided(paths: Sequence[Path], parts: int) -> list[list[Path]]:
    """Return files in so many parts of equal length, in their order."""
    each = len(paths) // parts
    return [list(paths[part * each : (part + 1) * each]) for part in range(parts)]


def labelled_path(argument: str) -> tuple[str, str]:
    """Split `label=path`, an argument that names what it gives."""
    label, equals, path = argument.partition("=")
    if not equals:
        raise InputError(f"{argument}: give a label and a file as label=path")
    return label, path


def reuse_freed_memory() -> None:
    """Have arrays take the memory of earlier ones, where the C library is glibc.

    By itself it begins with that once a larger array was freed. Until then each array is pages that
    the kernel has to clear, which can take longer than what is computed in them.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, HEAP_ARRAY_BYTES)
        mallopt(M_TRIM_THRESHOLD, 8 * HEAP_ARRAY_BYTES)


def collect_only_new_garbage() -> None:
    """Leave all objects of now to the end of the process, and look for garbage among others."""
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    # The end of the process looks through all others, and frees everything anyway.
    atexit.register(gc.freeze)


def run(
    main: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    *,
    resumes: bool = False,
) -> None:
    """Parse, log to stderr, call `main`; an InputError becomes one line and exit status 1.

    resumes: whether it goes on from what an interrupted process left beside `--output`, which two
    of them must not do at a time.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    # The libraries below log every HTTP request and every weight they initialise at INFO.
    for chatty in ("httpx2", "httpcore2", "transformers", "matplotlib", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    arguments = parser.parse_args()
    reuse_freed_memory()
    collect_only_new_garbage()
    # Processes that torchrun started make one output, and all find the same mistake.
    first = os.environ.get("RANK", "0") == "0"
    outputs = arguments.output if resumes and first else []
    try:
        with contextlib.ExitStack() as locks:
            for output in outputs if isinstance(outputs, list) else [outputs]:
                locks.enter_context(sole_writer(output))
            main(arguments)
    except InputError as error:
        if first:
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

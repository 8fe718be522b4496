"""Lists of files on their way to a job, in whose command there is room for some thousand letters.

Linux refuses an argument of more than 128 KiB. A long list travels as the pattern that it was found
by, with its checksum, and is found again by the job.
"""

import glob
import os
from collections.abc import Iterable, Sequence

from ifguide.errors import InputError
from ifguide.files.artifacts import text_sha256

LONGEST_LIST = 8192  # characters, of all lists of a job together
MARK = "glob-of-sha256:"


def as_arguments(
    paths: Sequence[str], pattern: str | None, longest: int = LONGEST_LIST
) -> list[str]:
    """Return paths as arguments, of at most `longest` characters where there is a pattern.

    pattern: by which they were found, None where by no pattern.
    """
    if pattern is None or sum(map(len, paths)) <= longest:
        # What begins with a hyphen would be an option.
        return [f"./{path}" if path.startswith("-") else path for path in paths]
    return [f"{MARK}{_checksum(paths)}:{pattern}"]


def from_arguments(arguments: Iterable[str]) -> list[str]:
    """Return the paths that `as_arguments` was given.

    Raises InputError where a pattern finds other files than it did.
    """
    paths = []
    for argument in arguments:
        if not argument.startswith(MARK):
            paths.append(argument)
            continue
        checksum, _, pattern = argument.removeprefix(MARK).partition(":")
        found = matching(pattern)
        if _checksum(found) != checksum:
            raise InputError(
                f"{pattern}: files that match have come or gone since the run began; run again"
            )
        paths += found
    return paths


def matching(pattern: str) -> list[str]:
    """Return the files that a pattern finds, sorted; one that links lead to as well is there once.

    A link to a folder above itself would have `**` find every file some forty times. Of several
    paths to one file the one with the fewest links counts, by its length and then by its letters.
    """
    found = glob.glob(pattern, recursive=True)
    if "**" not in pattern:
        return sorted(found)
    first: dict[str, str] = {}
    for path in sorted(found, key=lambda path: (path.count(os.sep), len(path), path)):
        first.setdefault(os.path.realpath(path), path)
    return sorted(first.values())


def _checksum(paths: Iterable[str]) -> str:
    return text_sha256("\n".join(paths))

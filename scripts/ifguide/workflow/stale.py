"""Results that know what made them, wherever they are taken.

Snakemake's records of jobs lie beside the results and not with them, and of inputs it asks only for
their dates. So the results of an experiment keep a copy of those records, which is put back where
Snakemake has none of its own, and of each file that a user gave its size, date and checksum.
"""

import base64
import binascii
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import write_text
from ifguide.files.checksums import file_sha256

# A file for each output, named by its path in base 64; of long names the beginnings are folders.
RECORDS = Path(".snakemake/metadata")
# Seconds by which the clocks of machines that share files may differ.
CLOCKS_DIFFER = 60


def keep_records(kept: Path, root: str) -> None:
    """Write a copy of Snakemake's records of all that lies below `root`."""
    if not RECORDS.is_dir():
        return  # it keeps them elsewhere
    records = {name: text for name, text in _read_records() if _output_of(name).startswith(root)}
    write_text(kept, json.dumps(records))


def restore_records(kept: Path) -> None:
    """Put back the kept records of outputs that are there and of which Snakemake has no record."""
    try:
        records: Mapping[str, str] = json.loads(kept.read_text(encoding="utf-8"))
        for name, text in records.items():
            path = RECORDS / name
            if not path.exists() and os.path.exists(_output_of(name)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    except (OSError, ValueError, AttributeError):
        return  # a copy that cannot be read or put back leaves everything as it is


def _read_records() -> Iterator[tuple[str, str]]:
    for path in RECORDS.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(RECORDS)), path.read_text(encoding="utf-8")


def _output_of(name: str) -> str:
    """Return the output whose record has a name."""
    encoded = "".join(part.removeprefix("@") for part in Path(name).parts)
    try:
        return base64.urlsafe_b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def keep_inputs(kept: Path, paths: Iterable[str], checksums: Mapping[str, str]) -> None:
    """Write what tells the files that a run is given; checksums: of those that were read whole."""
    states = {path: _state(path, checksums.get(path)) for path in paths if os.path.isfile(path)}
    write_text(kept, json.dumps(dict(sorted(states.items()))))


def require_known_inputs(kept: Path, paths: Iterable[str]) -> None:
    """Refuse a file that is another one than before, but has a date at which results were there.

    Snakemake would take what was made of the other one for current. Raises InputError.
    """
    if not kept.is_file():
        return
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
    except ValueError:
        return
    made = kept.stat().st_mtime_ns
    for path in sorted(set(paths) & set(known)):
        if not os.path.isfile(path):
            continue
        size, modified, sha256 = known[path]
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns) == (size, modified) or status.st_mtime_ns > made:
            continue
        if status.st_size != size or (sha256 is not None and file_sha256(path) != sha256):
            raise InputError(
                f"{path}: not the file that these results were made from, but older than they are, "
                f"so that they would be taken for current; `touch {path}` and run again"
            )


def require_past(paths: Iterable[str]) -> None:
    """Refuse a file that is dated in the future: Snakemake deletes what is made of it as outdated.

    Raises InputError.
    """
    soon = time.time() + CLOCKS_DIFFER
    for path in sorted(paths):
        if os.path.isfile(path) and os.path.getmtime(path) > soon:
            raise InputError(
                f"{path}: dated in the future, so that whatever is made of it would seem outdated; "
                f"`touch {path}` and run again"
            )


def _state(path: str, sha256: str | None) -> list:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, sha256]

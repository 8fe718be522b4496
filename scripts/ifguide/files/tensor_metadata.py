"""What safetensors files were made from, read without PyTorch, which takes seconds to load."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ifguide.errors import InputError
from ifguide.files.checksums import remedy, verify_own

# Under this name a file records the hash of its tensors, where others are made from these.
TENSORS = "tensors_sha256"


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a file that `write_tensors` wrote.

    Raises InputError where the file is missing, damaged, or has no recorded checksum.
    """
    with opened(path, "np") as content:
        return content.metadata() or {}


@contextlib.contextmanager
def opened(path: str | Path, framework: str) -> Iterator:
    """Open a safetensors file after verifying it. Raises InputError where that fails."""
    if not Path(path).exists():
        raise InputError(f"{path}: missing; run the stage that writes it again")
    verify_own(path)
    try:
        with safe_open(path, framework) as content:
            yield content
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); {remedy(path)}") from error

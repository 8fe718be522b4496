"""Compressed files, told by what they begin with and not by their names."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ifguide.errors import InputError

# What names of such files end in, after the suffix of what they hold.
SUFFIXES = (".gz", ".zst", ".zstd", ".xz", ".bz2")


def _open_zstandard(path: Path) -> IO[bytes]:
    import pyarrow

    # The file's own name would be asked for the kind of compression.
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")


READ: dict[bytes, tuple[str, Callable[[Path], IO[bytes]]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"\x28\xb5\x2f\xfd": ("Zstandard", _open_zstandard),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"BZh": ("bzip2", bz2.open),
}
NOT_READ = {
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
}
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


def without_suffix(name: str) -> str:
    """Return a file's name, in small letters, less the suffix of its compression."""
    name = name.lower()
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)


def compression(path: Path) -> tuple[str, Callable[[Path], IO[bytes]]] | None:
    """Return by what a file is compressed and how to open it, None for one that is not.

    Raises InputError for a kind that is not read, and for a name that says compressed in vain.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, name in NOT_READ.items():
        if start.startswith(magic):
            raise InputError(
                f"{path}: compressed ({name}); unpack it, or compress it by gzip, xz, bzip2 or "
                "Zstandard"
            )
    for magic, (name, opener) in READ.items():
        if start.startswith(magic):
            return name, opener
    if path.name.lower().endswith(".gz"):
        raise InputError(f"{path}: damaged gzip file (it begins otherwise); fetch it again")
    return None

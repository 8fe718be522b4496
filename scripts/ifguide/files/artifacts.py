"""Files that are whole or absent: atomic writes, checksums, and readers that verify them.

Text that a stage writes has its SHA-256 in a hidden file beside it, which its readers compare; so
do the files of tokenizers, classifiers and models. Arrays have theirs in the record of what they
are made from, tensors within their file (`tensor_files`).
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError

# Kinds of files whose checksums no other file holds.
TEXT = {".json", ".jsonl", ".csv", ".yaml"}


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, because writers such as numpy choose by it. The checksum of
    a text that is not hidden is recorded.
    Raises InputError where the device is full; what stood at `path` before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        if path.suffix in TEXT and not path.name.startswith("."):
            record_checksum(path, file_sha256(temporary))
        os.replace(temporary, path)
    except Exception as error:
        if is_out_of_space(error):
            raise InputError(
                f"{path}: no space left on the device, so it was not written; make room and run "
                "again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _checksum_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _described_by(record: Path) -> Path:
    return record.with_name(record.name.removeprefix(".").removesuffix(".sha256"))


def record_checksum(path: Path, checksum: str | None = None) -> None:
    """Write the SHA-256 of a file beside it, for `verify`; `checksum` where it is known."""
    record = _checksum_of(path)
    temporary = record.with_name(f"{record.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "w", encoding="ascii") as written:
            written.write(checksum or file_sha256(path))
            written.flush()
            os.fsync(written.fileno())
        os.replace(temporary, record)
    finally:
        temporary.unlink(missing_ok=True)


def record_checksums(directory: Path) -> None:
    """Record the checksums of the files of a directory, for `verify_directory`.

    Those of files that are no longer there are dropped: a workflow that removes what a failed job
    wrote does not know of them.
    """
    for record in directory.glob(".*.sha256"):
        if not _described_by(record).exists():
            record.unlink()
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            record_checksum(path)


def verify(path: str | Path, folder: str | Path | None = None) -> str | None:
    """Compare a file with its recorded checksum, if there is one, and return that.

    folder: what has to go with a damaged file, lest it is not made again. Raises InputError where
    the file is missing or is not what was written.
    """
    path = Path(path)
    rebuild = f"delete {f'the folder {folder}' if folder else 'it'} and run again"
    record = _checksum_of(path)
    if not record.exists():
        return None
    recorded = record.read_text(encoding="ascii", errors="replace")
    if not path.exists():
        raise InputError(f"{path}: missing; {rebuild if folder else 'run again'}")
    if (found := file_sha256(path)) != recorded:
        raise InputError(
            f"{path}: checksum {found[:12]} is not the recorded {recorded[:12]}; the file is "
            f"damaged or was changed by hand: {rebuild}"
        )
    return recorded


def verify_directory(directory: str | Path, pattern: str = "*") -> None:
    """Verify the files of a directory whose checksums are recorded and whose names match.

    The stage that writes it is known to the workflow by some of them, so all have to go.
    """
    for record in sorted(Path(directory).glob(f".{pattern}.sha256")):
        verify(_described_by(record), directory)


def verified_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, compared with the recorded one if there is one."""
    return verify(path) or file_sha256(path)


def is_out_of_space(error: BaseException) -> bool:
    """Whether a write failed for want of room, whichever library reports it.

    safetensors gives the system's message as text; numpy says only how little it wrote, and torch
    only that it stands at another place than it should.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    short = isinstance(error, OSError) and "requested and" in text
    short |= isinstance(error, RuntimeError) and "inline_container" in text and "pos" in text
    return short or os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text


def canonical_json(value: Any) -> str:
    """Return `value` as JSON that does not depend on the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, records: Iterable[dict]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON artifact of this workflow. Raises InputError where it is damaged."""
    verify(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error


def stream_jsonl(path: str | Path) -> Iterator[dict]:
    """Yield the records of a JSON-lines artifact. Raises InputError where it is damaged."""
    verify(path)
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield _record(line, f"{path}, line {number}")


def stream_jsonl_part(path: str | Path, part: int, parts: int) -> Iterator[dict]:
    """Yield the records whose lines begin in one of `parts` ranges of bytes of about equal length.

    Only that range is read, and every record is in one part; the checksum of the whole is not
    compared. Raises InputError with the place of a damaged line.
    """
    size = os.path.getsize(path)
    start, stop = size * part // parts, size * (part + 1) // parts
    with open(path, "rb") as lines:
        if start:
            # From the last byte before: a line that begins at `start` itself is not passed over.
            lines.seek(start - 1)
            lines.readline()
        while (place := lines.tell()) < stop:
            yield _record(lines.readline(), f"{path}, byte {place}")


def _record(line: str | bytes, place: str) -> dict:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: damaged ({error}); delete the file and run again") from error


def read_jsonl(path: str | Path) -> list[dict]:
    """Return all records of a JSON-lines artifact. Raises InputError where it is damaged."""
    return list(stream_jsonl(path))


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_array(path: str | Path, array: np.ndarray) -> str:
    """Write `array` as .npy and return the SHA-256 of the file."""
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
        return file_sha256(temporary)


def write_array_in_parts(
    path: str | Path, shape: tuple[int, ...], dtype: type, parts: Iterable[np.ndarray]
) -> str:
    """Write an array of which one part after another is made, as `write_array` writes it whole.

    parts: of `dtype`, in order; of any shape.
    """
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            described = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": described, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype))
        return file_sha256(temporary)


def open_array(path: str | Path, sha256: str | None = None) -> np.ndarray:
    """Memory-map a .npy file read-only; with `sha256`, verify it first.

    Raises InputError where the file is missing, truncated or differs from its checksum.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: missing; run the stage that writes it again")
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise InputError(
            f"{path}: checksum {found[:12]} is not the recorded {sha256[:12]}; the file is damaged "
            "or from another run: delete it and run again"
        )
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from error


def require_same(what: str, expected: str, found: str, path: str | Path) -> None:
    """Raise InputError with both hashes unless `path` was made from the expected `what`."""
    if expected != found:
        raise InputError(
            f"{path}: made from {what} {found[:12]}, but {what} here is {expected[:12]}; "
            "delete it and run again"
        )

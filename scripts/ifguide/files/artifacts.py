"""Files that are whole or absent: atomic writes, and readers that verify what they read."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.errors import InputError
from ifguide.files import checksums
from ifguide.files.checksums import allow_by_umask, remedy, verify, verify_own

Publish = Callable[[Path, Path], None]


@contextlib.contextmanager
def atomic_path(path: str | Path, publish: Publish | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, because writers such as numpy choose by it.
    publish: renames the first path to the second; by default that records the checksum of a file
    that is not hidden. `os.replace` is for files that are no results, in a user's own folders.
    Raises InputError where the device is full; what stood at `path` before stays.
    """
    path = Path(path)
    if publish is None:
        publish = os.replace if path.name.startswith(".") else checksums.publish
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        allow_by_umask(temporary)
        publish(temporary, path)
    except Exception as error:
        if is_out_of_space(error):
            raise InputError(
                f"{path}: no space left on the device, so it was not written; make room and run "
                "again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


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


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(path: str | Path, text: str, publish: Publish | None = None) -> None:
    """Write `text` in UTF-8; `publish` as for `atomic_path`."""
    with atomic_path(path, publish) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, publish: Publish | None = None) -> None:
    """Write `value`; `publish` as for `atomic_path`."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n", publish)


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
        raise InputError(f"{path}: damaged ({error}); {remedy(path)}") from error


def stream_jsonl(path: str | Path) -> Iterator[dict]:
    """Yield the records of a JSON-lines artifact. Raises InputError where it is damaged."""
    verify(path)
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield _record(line, path, f"line {number}")


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
            yield _record(lines.readline(), path, f"byte {place}")


def _record(line: str | bytes, path: str | Path, place: str) -> dict:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        advice = remedy(path, "the file")
        raise InputError(f"{path}, {place}: damaged ({error}); {advice}") from error


def read_jsonl(path: str | Path) -> list[dict]:
    """Return all records of a JSON-lines artifact. Raises InputError where it is damaged."""
    return list(stream_jsonl(path))


def write_array(path: str | Path, array: np.ndarray, publish: Publish | None = None) -> None:
    """Write `array` as .npy; `publish` as for `atomic_path`."""
    with atomic_path(path, publish) as temporary:
        np.save(temporary, array, allow_pickle=False)


def write_array_in_parts(
    path: str | Path,
    shape: tuple[int, ...],
    dtype: type,
    parts: Iterable[np.ndarray],
    publish: Publish | None = None,
) -> None:
    """Write an array of which one part after another is made, as `write_array` writes it whole.

    parts: of `dtype`, in order; of any shape.
    """
    with atomic_path(path, publish) as temporary, open(temporary, "wb") as file:
        described = np.lib.format.dtype_to_descr(np.dtype(dtype))
        header = {"descr": described, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype))


def open_array(path: str | Path) -> np.ndarray:
    """Memory-map a .npy file of this workflow read-only, after verifying it.

    Raises InputError where the file is missing, damaged, or has no recorded checksum.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: missing; run the stage that writes it again")
    verify_own(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged ({error}); {remedy(path)}") from error


def require_same(what: str, expected: str, found: str, path: str | Path) -> None:
    """Raise InputError with both hashes unless `path` was made from the expected `what`."""
    if expected != found:
        raise InputError(
            f"{path}: made from {what} {found[:12]}, but {what} here is {expected[:12]}; "
            f"{remedy(path)}"
        )

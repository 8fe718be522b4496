"""Lines of UTF-8 text files, streamed, and files that turn out to be in another encoding."""

import codecs
import contextlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from ifguide.data.compression import DAMAGED, compression
from ifguide.errors import InputError

T = TypeVar("T")

# A longer line is dropped without being held in memory.
MAXIMUM_LINE_BYTES = 64 * 2**20
# One bad record, or so small a share of a file, is bad luck; more is a file of another kind.
BAD_SHARE = 0.01
# A file whose share is exceeded need not be read to its end.
RECORDS_BETWEEN_CHECKS = 10_000
# Bytes at the beginning of a file that tell UTF-16 and UTF-32 from UTF-8.
_SAMPLE_BYTES = 65_536
BUFFER_BYTES = 2**20
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WIDE_ENCODINGS = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


class Line(NamedTuple):
    """One line without its end, and its number from 1; `text` is None for a dropped line."""

    text: str | None
    number: int


def is_unicode(text: str) -> bool:
    """Return whether `text` can be written as UTF-8: no byte of it failed to decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading, decompressed where it is compressed, whatever its name.

    Raises InputError for a file that cannot be read or decompressed.
    """
    kind = None
    try:
        if found := compression(path):
            kind, opener = found
            # Lines are read from a buffer: not every decompressor finds their ends itself.
            with opener(path) as raw, io.BufferedReader(raw, BUFFER_BYTES) as stream:
                yield stream
        else:
            with open(path, "rb") as stream:
                yield stream
    except DAMAGED as error:
        raise InputError(f"{path}: damaged {kind} file ({error}); fetch it again") from error
    except OSError as error:
        if kind is not None and error.errno is None:
            raise InputError(f"{path}: damaged {kind} file ({error}); fetch it again") from error
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file; undecodable bytes become lone surrogates.

    Raises InputError for a file in UTF-16 or UTF-32, and for one where more than one line, and
    more than 1 % of them, is not UTF-8: such a file has another encoding.
    """
    return require_utf8(path, decode_lines(path), "lines", lambda line: [line.text or ""])


def decode_lines(path: Path, *, keep_ends: bool = False) -> Iterator[Line]:
    """Yield the lines of a file as `read_lines`, however many of them are not UTF-8."""
    number = 0
    with open_bytes(path) as stream:
        refuse_wide_encoding(path, stream.read(_SAMPLE_BYTES))
    # Opened again: not every decompressor goes back.
    with open_bytes(path) as stream:
        while line := stream.readline(MAXIMUM_LINE_BYTES):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) == MAXIMUM_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(2**20)
                yield Line(None, number)
                continue
            text = decoded(line)
            yield Line(text if keep_ends else text.removesuffix("\n").removesuffix("\r"), number)


def refuse_wide_encoding(path: Path, start: bytes) -> None:
    sample = start[:_SAMPLE_BYTES]
    has_mark = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    lines = [line for line in sample[2 * has_mark :].split(b"\n") if line]
    # UTF-8 may hold a record of NULs or of any bytes; most of its lines are sound. Halves of wide
    # characters, NULs foremost, are control characters.
    sound = sum(not _CONTROL_BYTES.search(line) and is_unicode(decoded(line)) for line in lines)
    if 2 * sound < len(lines) and any(_is_wide_text(sample, name) for name in _WIDE_ENCODINGS):
        raise InputError(f"{path}: not UTF-8 (it looks like UTF-16 or UTF-32); convert it to UTF-8")


def _is_wide_text(sample: bytes, encoding: str) -> bool:
    """Return whether `sample`, which may end within a character, is text in `encoding`.

    Almost any bytes decode as UTF-16, mostly to ideographs. Text begins with a byte order mark or
    is ASCII for the most part, which fills every other byte with NUL; two together are no text.
    """
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    is_ascii = 2 * sum(character.isascii() for character in text) > len(text)
    return "\0" not in text and (is_ascii or text.startswith("\ufeff"))


def decoded(line: bytes) -> str:
    return line.decode(errors="surrogateescape")


def require_utf8(
    path: Path, items: Iterable[T], unit: str, texts: Callable[[T], Iterable[Any]]
) -> Iterator[T]:
    """Yield `items`, the lines, rows or documents (`unit`) of a file, that hold `texts`.

    Raises InputError where more than one of them, and more than 1 %, is not UTF-8.
    """
    undecodable = number = 0
    for number, item in enumerate(items, start=1):
        undecodable += not all(is_unicode(text) for text in texts(item))
        if number % RECORDS_BETWEEN_CHECKS == 0:
            _refuse_undecodable(path, undecodable, number, unit)
        yield item
    _refuse_undecodable(path, undecodable, number, unit)


def _refuse_undecodable(path: Path, undecodable: int, number: int, unit: str) -> None:
    if is_more_than_bad_luck(undecodable, number):
        raise InputError(
            f"{path}: not UTF-8 ({undecodable} of its first {number} {unit} cannot be decoded); "
            "convert it to UTF-8"
        )


def is_more_than_bad_luck(bad: int, number: int) -> bool:
    return bad > max(1, BAD_SHARE * number)


def with_neighbours(lines: Iterable[Line]) -> Iterator[tuple[Line | None, Line, Line | None]]:
    """Yield each line with the one before and the one after it (None beyond the ends)."""
    window: deque[Line | None] = deque([None], maxlen=3)
    for line in lines:
        window.append(line)
        if len(window) == 3:
            yield window[0], window[1], window[2]
    if len(window) > 1:
        yield window[-2], window[-1], None

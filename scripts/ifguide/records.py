"""Records and lines of text files, streamed, with the file and line that each came from."""

import contextlib
import csv
import glob
import gzip
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ifguide.errors import InputError

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
}
# A longer line is dropped without being held in memory.
MAXIMUM_LINE_BYTES = 64 * 2**20
# A JSON list cannot be streamed with the standard library; larger data come as JSON lines.
MAXIMUM_JSON_BYTES = 512 * 2**20
UNDECODABLE_SHARE = 0.01


class Record(NamedTuple):
    """Fields of one record and where it stands, such as `data/a.jsonl, line 7`.

    Bytes that are not UTF-8 appear as lone surrogates in the fields (see `is_unicode`); `fields`
    is None for a line that was dropped because it is longer than 64 MiB.
    """

    fields: dict[str, Any] | None
    where: str


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


def file_format(path: Path, format: str | None = None) -> str:
    """Return `format`, or what the suffix of `path` (less `.gz`) says.

    Raises InputError for a format or a suffix that is not known.
    """
    if format is not None:
        if format not in FORMATS.values():
            known = ", ".join(sorted(set(FORMATS.values())))
            raise InputError(f"format: {format!r} is not one of {known}")
        return format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: its suffix is none of {known}; rename it or set `format`")
    return FORMATS[suffixes[-1]]


def require_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return `paths` sorted, the files of a pattern in its place.

    Raises InputError unless each is a file that is not empty.
    """
    patterns = [str(path) for path in paths]
    found = sorted(Path(path) for pattern in patterns for path in _expanded(pattern))
    if not found:
        raise InputError(
            f"files: no file matches {', '.join(patterns) or 'anything'}; check the path or the "
            "pattern"
        )
    for path in found:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path, or fetch the data first")
        if not path.is_file():
            raise InputError(f"{path}: not a file; name files or a pattern such as {path}/*.jsonl")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; fetch it again or remove it")
    return found


def _expanded(pattern: str) -> list[str]:
    if glob.has_magic(pattern) and not Path(pattern).exists():
        return glob.glob(pattern, recursive=True)
    return [pattern]


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading, decompressed where its name ends in `.gz`.

    Raises InputError for a file that cannot be read or decompressed.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_lines(path: Path, *, keep_ends: bool = False) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file; undecodable bytes become lone surrogates.

    Raises InputError for a file in UTF-16 or UTF-32, and for one where more than one line, and
    more than 1 % of them, is not UTF-8: such a file has another encoding.
    """
    undecodable = number = 0
    with open_bytes(path) as stream:
        _refuse_wide_encoding(path, stream.peek(4096))
        while line := stream.readline(MAXIMUM_LINE_BYTES):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) == MAXIMUM_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(2**20)
                yield Line(None, number)
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError:
                undecodable += 1
                text = line.decode(errors="surrogateescape")
            if number % 10_000 == 0:
                _refuse_undecodable(path, undecodable, number)
            yield Line(text if keep_ends else text.removesuffix("\n").removesuffix("\r"), number)
    _refuse_undecodable(path, undecodable, number)


def _refuse_wide_encoding(path: Path, start: bytes) -> None:
    start = start[:4096]
    # UTF-16 and UTF-32 begin with a byte order mark or fill ASCII text up with NUL bytes.
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or 4 * start.count(0) > max(len(start), 4):
        raise InputError(f"{path}: not UTF-8 (it looks like UTF-16 or UTF-32); convert it to UTF-8")


def _refuse_undecodable(path: Path, undecodable: int, lines: int) -> None:
    if undecodable > max(1, UNDECODABLE_SHARE * lines):
        raise InputError(
            f"{path}: not UTF-8 ({undecodable} of its first {lines} lines cannot be decoded); "
            "convert it to UTF-8"
        )


def read_records(path: Path, format: str | None = None) -> Iterator[Record]:
    """Yield the records of a JSON-lines, JSON, CSV, TSV or Parquet file in their order.

    Raises InputError, with file and line, for a record that is malformed.
    """
    readers = {
        "jsonl": _read_jsonl,
        "json": _read_json,
        "csv": lambda path: _read_delimited(path, ","),
        "tsv": lambda path: _read_delimited(path, "\t"),
        "parquet": _read_parquet,
    }
    format = file_format(path, format)
    if format not in readers:
        raise InputError(f"{path}: plain text has no fields; set `format` if it holds records")
    return readers[format](path)


def _parse_json(text: str, where: str, advice: str) -> Any:
    try:
        # Control characters in strings are common in crawled text and are no reason to stop.
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: JSON that cannot be read ({error}); {advice}") from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    for text, number in read_lines(path):
        where = f"{path}, line {number}"
        if text is None:
            yield Record(None, where)
        elif text.strip():
            fields = _parse_json(text, where, "fix or remove the line")
            if not isinstance(fields, dict):
                raise InputError(f"{where}: not a JSON object; write one object a line")
            yield Record(fields, where)


def read_json_file(path: Path) -> Any:
    """Return the value of a JSON file of at most 512 MiB. Raises InputError with its line."""
    with open_bytes(path) as stream:
        content = stream.read(MAXIMUM_JSON_BYTES + 1)
    if len(content) > MAXIMUM_JSON_BYTES:
        raise InputError(f"{path}: a JSON file of more than 512 MiB; convert it to JSON lines")
    _refuse_wide_encoding(path, content)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    texts = [line.decode(errors="surrogateescape") for line in lines]
    _refuse_undecodable(path, sum(not is_unicode(text) for text in texts), len(texts))
    text = "\n".join(texts)
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        advice = "JSON lines need `format: jsonl`" if error.msg == "Extra data" else "fix the file"
        raise InputError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); {advice}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: JSON that cannot be read ({error}); fix the file") from error


def _read_json(path: Path) -> Iterator[Record]:
    records = read_json_file(path)
    if not isinstance(records, list):
        raise InputError(f"{path}: holds no JSON list; write a list of objects, or JSON lines")
    for number, fields in enumerate(records, start=1):
        if not isinstance(fields, dict):
            raise InputError(f"{path}, record {number}: not a JSON object; fix or remove it")
        yield Record(fields, f"{path}, record {number}")


def _read_delimited(path: Path, delimiter: str) -> Iterator[Record]:
    # The default of 131,072 characters is shorter than many documents; there is no local setting.
    csv.field_size_limit(max(csv.field_size_limit(), MAXIMUM_LINE_BYTES))
    rows = csv.reader(_delimited_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    first_line = 1
    while True:
        where = f"{path}, line {first_line}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{where}: malformed row ({error}); check its quotes") from error
        if row is None:
            return
        if header is None:
            header = row
        elif row:
            if len(row) != len(header):
                raise InputError(
                    f"{where}: {len(row)} fields where the header has {len(header)}; fix the row"
                )
            yield Record(dict(zip(header, row, strict=True)), where)
        first_line = rows.line_num + 1


def _delimited_lines(path: Path) -> Iterator[str]:
    for text, number in read_lines(path, keep_ends=True):
        if text is None:
            raise InputError(f"{path}, line {number}: longer than 64 MiB; split or remove the row")
        yield text


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{path}, row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet ({reason}); fetch it again") from error


def require_fields(record: Record, names: Iterable[str]) -> None:
    """Raise InputError that names the fields there are unless `record` has all of `names`."""
    for name in names:
        if name not in record.fields:
            present = ", ".join(str(field) for field in record.fields) or "none"
            raise InputError(f"{record.where}: no field {name!r}; there are: {present}")


def with_neighbours(lines: Iterable[Line]) -> Iterator[tuple[Line | None, Line, Line | None]]:
    """Yield each line with the one before and the one after it (None beyond the ends)."""
    window: deque[Line | None] = deque([None], maxlen=3)
    for line in lines:
        window.append(line)
        if len(window) == 3:
            yield window[0], window[1], window[2]
    if len(window) > 1:
        yield window[-2], window[-1], None

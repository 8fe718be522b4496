"""Records of files, streamed, with the file and line that each came from."""

import codecs
import csv
import glob
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ifguide.data.compression import compression, without_suffix
from ifguide.data.text_lines import (
    MAXIMUM_LINE_BYTES,
    RECORDS_BETWEEN_CHECKS,
    Line,
    decode_lines,
    decoded,
    is_more_than_bad_luck,
    open_bytes,
    read_lines,
    refuse_wide_encoding,
    require_utf8,
)
from ifguide.errors import InputError
from ifguide.files.checksums import SUMS

log = logging.getLogger(__name__)

T = TypeVar("T")

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
# A JSON list cannot be streamed with the standard library; larger data come as JSON lines.
MAXIMUM_JSON_BYTES = 512 * 2**20
# So many records without a sound one are no bad luck either.
NONE_SOUND_OF = 100
# Malformed records of a file or of a source that are named one by one.
MALFORMED_NAMED = 5
_FAULT_CHARACTERS = 500
_NO_OBJECT = "not a JSON object, as each record must be; fix or remove it"


class MalformedRecord(InputError):
    """One record is not what its format says; those around it may be sound."""


class Record(NamedTuple):
    """Fields of one record and where it stands, such as `data/a.jsonl, line 7`.

    Bytes that are not UTF-8 appear as lone surrogates in the fields (see `is_unicode`). `fields`
    is None for a record that could not be read: `fault` says why, or is None for a line that was
    dropped because it is longer than 64 MiB.
    """

    fields: dict[str, Any] | None
    where: str
    fault: str | None = None


def file_format(path: Path, format: str | None = None) -> str:
    """Return `format`, or what the suffix of `path` says (less that of a compression).

    Raises InputError for a format or a suffix that is not known.
    """
    if format is not None:
        if format not in FORMATS.values():
            known = ", ".join(sorted(set(FORMATS.values())))
            raise InputError(f"format: {format!r} is not one of {known}")
        return format
    suffix = Path(without_suffix(path.name)).suffix
    if suffix not in FORMATS:
        if path.is_file():
            compression(path)  # refuses those that no advice on names would help
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: its suffix is none of {known}; rename it or set `format`")
    return FORMATS[suffix]


def require_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return `paths` sorted, the files of a pattern in its place.

    Raises InputError unless each is a file that is not empty.
    """
    patterns = [str(path) for path in paths]
    found = sorted(Path(path) for pattern in patterns for path in _expanded(pattern))
    # A pattern for all files of a folder finds them, too; they speak of the others.
    found = [path for path in found if path.name != SUMS]
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
            raise InputError(
                f"{path}: the file is empty; fetch it again or leave it out of `files`"
            )
    return found


def _expanded(pattern: str) -> list[str]:
    if glob.has_magic(pattern) and not Path(pattern).exists():
        return glob.glob(pattern, recursive=True)
    return [pattern]


def read_records(
    path: Path, format: str | None = None, *, quotes: bool | None = None
) -> Iterator[Record]:
    """Yield the records of a JSON-lines, JSON, CSV, TSV or Parquet file in their order.

    quotes: whether fields of CSV and TSV may stand in quotation marks, which may hold delimiters
    and line breaks; None: those of CSV may, and in TSV a quotation mark is text.
    Records that cannot be read are among them, for `parse_records` to count.
    Raises InputError for a file that is malformed as a whole.
    """
    readers = {
        "jsonl": _read_jsonl,
        "json": _read_json,
        "csv": lambda path: _read_delimited(path, ",", quotes is not False),
        "tsv": lambda path: _read_delimited(path, "\t", bool(quotes)),
        "parquet": _read_parquet,
    }
    format = file_format(path, format)
    if format not in readers:
        raise InputError(f"{path}: plain text has no fields; set `format` if it holds records")
    return readers[format](path)


def parse_records(
    path: Path,
    records: Iterable[Record],
    parse: Callable[[Record], Iterable[T]],
    malformed: list[str],
) -> Iterator[T]:
    """Yield what `parse` makes of each of the `records` of `path`, but for malformed ones.

    Malformed is what could not be read and what `parse` raises MalformedRecord for. The place and
    fault of each is appended to `malformed`, and the first few are logged.

    Raises InputError, with the first of them, where more than one record and more than 1 % is
    malformed, or every one: the file is not what it is taken for.
    """
    number, before = 0, len(malformed)
    for number, record in enumerate(records, start=1):
        try:
            if record.fault is not None:
                raise MalformedRecord(f"{record.where}: {record.fault}")
            parsed = list(parse(record))
        except MalformedRecord as error:
            parsed = []
            malformed.append(one_line(str(error)))
            if len(malformed) - before <= MALFORMED_NAMED:
                log.warning("skipped: %s", malformed[-1])
        none_sound = number == NONE_SOUND_OF == len(malformed) - before
        if none_sound or number % RECORDS_BETWEEN_CHECKS == 0:
            refuse_malformed(malformed[before:], number)
        yield from parsed
    refuse_malformed(malformed[before:], number)


def first_parsed(read: Callable[[list[str]], Iterator[T]], count: int) -> list[T]:
    """Return at most `count` of what `read` yields, by `parse_records`, without what follows.

    read: takes the list to which malformed records go. Raises InputError as `parse_records`.
    """
    malformed: list[str] = []
    found = list(itertools.islice(read(malformed), count))
    refuse_malformed(malformed, len(found) + len(malformed))
    return found


def refuse_malformed(malformed: Sequence[str], number: int) -> None:
    """Raise InputError where too many of the first `number` records are malformed, or all."""
    bad = len(malformed)
    if bad and (bad == number or is_more_than_bad_luck(bad, number)):
        share = "" if bad == 1 else f" ({bad} of the first {number} records are malformed)"
        raise InputError(malformed[0] + share)


def one_line(text: str) -> str:
    """Return `text`, which may quote a record, so that it can be printed and written in one line.

    What cannot be printed, lone surrogates among it, is escaped; more than 500 characters are cut.
    """
    cut = text[:_FAULT_CHARACTERS] + " ..." * (len(text) > _FAULT_CHARACTERS)
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in cut
    )


def _decode_json(text: str) -> Any:
    # Control characters in strings are common in crawled text and are no reason to stop.
    return json.loads(text, strict=False, parse_int=_parse_integer)


def _parse_integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        # Python converts no more than some thousand digits; JSON knows no difference from a float.
        return float(digits)


def _read_jsonl(path: Path) -> Iterator[Record]:
    for text, number in read_lines(path):
        where = f"{path}, line {number}"
        if text is None:
            yield Record(None, where)
        elif text.strip():
            yield _json_object(text, where)


def _json_object(text: str, where: str) -> Record:
    try:
        fields = _decode_json(text)
    except json.JSONDecodeError as error:
        return Record(None, where, f"not valid JSON ({error.msg}); fix or remove it")
    except RecursionError:
        return Record(None, where, "JSON that cannot be read (nested too deeply); remove it")
    if not isinstance(fields, dict):
        if isinstance(fields, list) and fields and all(isinstance(x, dict) for x in fields):
            return Record(None, where, "a JSON list, not JSON lines; set `format: json`")
        return Record(None, where, _NO_OBJECT)
    return Record(fields, where)


def read_json_file(path: Path) -> Any:
    """Return the value of a JSON file of at most 512 MiB. Raises InputError with its line."""
    try:
        return _parse_json_file(path, _json_text(path))
    except RecursionError as error:
        raise InputError(
            f"{path}: JSON that cannot be read (nested too deeply); fix the file"
        ) from error


def _json_text(path: Path) -> str:
    with open_bytes(path) as stream:
        content = stream.read(MAXIMUM_JSON_BYTES + 1)
    if len(content) > MAXIMUM_JSON_BYTES:
        raise InputError(f"{path}: a JSON file of more than 512 MiB; convert it to JSON lines")
    refuse_wide_encoding(path, content)
    lines = map(decoded, content.removeprefix(codecs.BOM_UTF8).split(b"\n"))
    return "\n".join(require_utf8(path, lines, "lines", lambda line: [line]))


def _parse_json_file(path: Path, text: str) -> Any:
    try:
        return _decode_json(text)
    except json.JSONDecodeError as error:
        advice = "JSON lines need `format: jsonl`" if error.msg == "Extra data" else "fix the file"
        raise InputError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg}); {advice}"
        ) from error


def _read_json(path: Path) -> Iterator[Record]:
    records = read_json_file(path)
    if not isinstance(records, list):
        raise InputError(f"{path}: holds no JSON list; write a list of objects, or JSON lines")
    for number, fields in enumerate(records, start=1):
        where = f"{path}, record {number}"
        if isinstance(fields, dict):
            yield Record(fields, where)
        else:
            yield Record(None, where, _NO_OBJECT)


def _read_delimited(path: Path, delimiter: str, quotes: bool) -> Iterator[Record]:
    rows = _delimited_rows(path, delimiter, quotes)
    return require_utf8(path, rows, "rows", lambda record: (record.fields or {}).values())


def _delimited_rows(path: Path, delimiter: str, quotes: bool) -> Iterator[Record]:
    # The default of 131,072 characters is shorter than many documents; there is no local setting.
    csv.field_size_limit(max(csv.field_size_limit(), MAXIMUM_LINE_BYTES))
    lines = _RowLines(decode_lines(path, keep_ends=True))
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    header: list[str] | None = None
    while True:
        lines.begin_row()
        fault = None
        try:
            row = next(rows, None)
        except csv.Error as error:
            row, fault = [], f"malformed row ({error}); check its quotes"
        if row is None:
            return
        where = f"{path}, line {lines.row[0].number}"
        if fault is not None and header is None:
            raise InputError(f"{where}: {fault}")
        if fault is not None:
            lines.give_back()
            yield Record(None, where, None if lines.row[0].text is None else fault)
        elif header is None:
            header = _header(row, where, delimiter)
        elif row and len(row) != len(header):
            hint = "" if quotes or '"' not in "".join(row) else QUOTES_HINT
            fault = f"{len(row)} fields where the header has {len(header)}; fix the row{hint}"
            yield Record(None, where, fault)
        elif row:
            yield Record(dict(zip(header, row, strict=True)), where)


QUOTES_HINT = ", or set `quotes: true` if quotation marks enclose fields"
# What other tables are separated by.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _header(row: list[str], where: str, delimiter: str) -> list[str]:
    """Return the names of the columns, less white space around them.

    Raises InputError where one stands twice, and where a table is separated by something else.
    """
    names = [name.strip() for name in row]
    if not any(names):
        raise InputError(f"{where}: empty, but the first line names the columns; remove it")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: the column {name!r} stands twice; rename or remove one")
    others = [other for other in DELIMITERS if other != delimiter and other in row[0]]
    if len(row) == 1 and others:
        raise InputError(
            f"{where}: one column, {row[0].strip()!r}: its fields are separated by "
            f"{DELIMITERS[others[0]]}, not {DELIMITERS[delimiter]}; convert it, or set `format`"
        )
    return names


class _RowLines:
    """The lines of a table as its reader takes them; a row may span several.

    A quote that is never closed takes all that follows into its row. The lines after the first of
    such a row can be given back, to be read as rows of their own.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self.row: list[Line] = []
        self._lines = lines
        self._given_back: deque[Line] = deque()

    def begin_row(self) -> None:
        self.row = []

    def give_back(self) -> None:
        self._given_back.extendleft(reversed(self.row[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._lines)
        self.row.append(line)
        if line.text is None:
            raise csv.Error("longer than 64 MiB")
        return line.text


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for name in (names := table.schema_arrow.names):
                if names.count(name) > 1:
                    raise InputError(f"{path}: the column {name!r} stands twice; remove one")
            for batch in table.iter_batches(batch_size=1024):
                for fields, fault in _parquet_rows(batch):
                    number += 1
                    yield Record(fields, f"{path}, row {number}", fault)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet ({reason}); fetch it again") from error


def _parquet_rows(batch: Any) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Yield the fields of each row, or None and what is wrong with them."""
    try:
        for fields in batch.to_pylist():
            yield fields, None
    except (ValueError, OverflowError) as error:
        # Text that is not UTF-8, or a date out of range: one row alone tells which it is.
        if len(batch) == 1:
            yield None, f"a value that cannot be read ({error}); fix or remove the row"
        else:
            for row in range(len(batch)):
                yield from _parquet_rows(batch.slice(row, 1))


def require_fields(record: Record, names: Iterable[str]) -> None:
    """Raise MalformedRecord that names the fields there are unless `record` has all of `names`."""
    if record.fields is None:
        raise MalformedRecord(f"{record.where}: longer than 64 MiB; split or remove it")
    for name in names:
        if name not in record.fields:
            present = ", ".join(str(field) for field in record.fields) or "none"
            raise MalformedRecord(f"{record.where}: no field {name!r}; there are: {present}")

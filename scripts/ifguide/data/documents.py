"""Documents of a corpus: read from files, cleaned, counted and held out by content.

A source is one entry of the config's list `corpus.sources`. Documents that no language model could
learn from, and single records that are malformed, are skipped and counted; a file that is not what
the source says is an error.
"""

import dataclasses
import functools
import itertools
import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.records import (
    MALFORMED_NAMED,
    MalformedRecord,
    Record,
    file_format,
    parse_records,
    read_records,
    require_fields,
    require_files,
)
from ifguide.data.text_lines import Line, decode_lines, is_unicode, require_utf8, with_neighbours
from ifguide.errors import InputError
from ifguide.seeds import derive_seed, uniform_hash

Spans = tuple[tuple[int, int], ...]
# None stands for the text of an oversized document.
RawDocument = tuple[str | None, Spans | None]

# Longer documents are no text that anybody wrote: a 50 MB line is a broken export.
MAXIMUM_CHARACTERS = 10_000_000
TEXT_DOCUMENTS = ("line", "paragraph", "file", "heading")

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONE_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")
# WikiText: one '=' encloses a document's title, two or more a section's.
_TITLE = re.compile(r" ?= [^=\s].* = ?")
# Spans as Python writes them: tuples of offsets, and a comma before a closing bracket.
_TUPLE = re.compile(r"\(([\s\d,-]*)\)")
_LAST_COMMA = re.compile(r",\s*(?=\])")


@dataclasses.dataclass(frozen=True)
class Document:
    """One document: its text, its toxic character ranges [start, end), its source's name.

    `spans` is sorted and disjoint; empty means that nothing is toxic, None that it is not known.
    """

    text: str
    spans: Spans | None
    source: str


@dataclasses.dataclass
class ReadReport:
    """What became of the documents of one source; characters are counted after cleaning.

    `first_malformed` says of the first malformed records where they are and what is wrong.
    """

    documents: int = 0
    characters: int = 0
    skipped_empty: int = 0
    skipped_not_utf8: int = 0
    skipped_oversized: int = 0
    skipped_malformed: int = 0
    removed_control_characters: int = 0
    first_malformed: list[str] = dataclasses.field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_documents(
    source: dict,
    paths: Sequence[str | Path] = (),
    report: ReadReport | None = None,
    *,
    maximum_characters: int = MAXIMUM_CHARACTERS,
) -> Iterator[Document]:
    """Yield the documents of `source` from `paths` in sorted order.

    `source` holds `name` and may hold `format`, `text` (the field with the text, default "text"),
    `spans` (the field with toxic spans), `span_labels` (those that count), `quotes` (as
    `read_records`), `documents` (for plain text: line, paragraph, file or
    heading; default line) and `limit`. `report` is filled while reading and complete at the end.
    Files are streamed; one document at a time is in memory.

    Skipped and counted: only white space, not UTF-8, longer than `maximum_characters`, or
    malformed: a record that cannot be read, one without a field that the source names, a text that
    is none, and spans that are none or lie outside their text. Control characters other than line
    feed and tab are removed, spans moved accordingly, and carriage returns become line feeds.

    Raises InputError for a missing or empty file, a file in another encoding, one with more than
    one malformed record that are more than 1 % of it, or with no other, and for no document at all.
    """
    report = ReadReport() if report is None else report
    files = require_files(paths)
    for path in files:
        file_format(path, source.get("format"))
    malformed: list[str] = []
    raw = itertools.chain.from_iterable(
        _read_file(source, path, maximum_characters, malformed) for path in files
    )
    yield from _clean_documents(source, raw, report, maximum_characters)
    report.skipped_malformed = len(malformed)
    report.first_malformed = malformed[:MALFORMED_NAMED]
    if report.documents == 0 and source.get("limit") != 0:
        raise InputError(f"{files[0]}: {_nothing_left(source, report)}")


def is_held_out(text: str, share: float, seed: int) -> bool:
    """Return whether the document `text` belongs to the held-out `share` (0 to 1).

    It depends on the text and the experiment's seed alone, so copies of a document stay together.
    """
    return uniform_hash(derive_seed(seed, "held_out"), text) < share


def _name(source: dict) -> str:
    return str(source.get("name", "documents"))


def _nothing_left(source: dict, report: ReadReport) -> str:
    skipped = ", ".join(
        f"{count} {reason.removeprefix('skipped_').replace('_', ' ')}"
        for reason, count in report.as_dict().items()
        if reason.startswith("skipped_") and count
    )
    return (
        f"no document for source {_name(source)} ({skipped or 'the file holds no record'}); "
        "check the file and the source's settings"
    )


def _clean_documents(
    source: dict,
    raw: Iterable[RawDocument],
    report: ReadReport,
    maximum_characters: int,
) -> Iterator[Document]:
    name = _name(source)
    limit = source.get("limit")
    if limit == 0:
        return
    for text, spans in raw:
        if text is None or len(text) > maximum_characters:
            report.skipped_oversized += 1
        elif not is_unicode(text):
            report.skipped_not_utf8 += 1
        else:
            text, spans, removed = remove_control_characters(text, spans)
            report.removed_control_characters += removed
            if not text.strip():
                report.skipped_empty += 1
                continue
            report.documents += 1
            report.characters += len(text)
            yield Document(text, spans, name)
            if report.documents == limit:
                return


def remove_control_characters(text: str, spans: Spans | None) -> tuple[str, Spans | None, int]:
    """Return `text` without control characters, `spans` on the new text, and how many went.

    Line feed and tab stay. Carriage returns become line feeds and are not counted.
    """
    if not _CONTROL_CHARACTERS.search(text):
        return text, spans, 0
    text = _LONE_CARRIAGE_RETURN.sub("\n", text)
    positions = [match.start() for match in _CONTROL_CHARACTERS.finditer(text)]
    removed = sum(text[position] != "\r" for position in positions)
    cleaned = _CONTROL_CHARACTERS.sub("", text)
    if spans is None:
        return cleaned, None, removed
    moved = (
        tuple(offset - int(np.searchsorted(positions, offset)) for offset in span) for span in spans
    )
    return cleaned, tuple((start, end) for start, end in moved if start < end), removed


def _read_file(
    source: dict, path: Path, maximum_characters: int, malformed: list[str]
) -> Iterator[RawDocument]:
    format = file_format(path, source.get("format"))
    if format == "text":
        rule = source.get("documents", "line")
        if rule not in TEXT_DOCUMENTS:
            raise InputError(
                f"corpus.sources.{_name(source)}.documents: {rule!r} is not one of "
                f"{', '.join(TEXT_DOCUMENTS)}"
            )
        texts = split_text(decode_lines(path), rule, maximum_characters)
        # However many of its lines are not UTF-8, a document is one bad document.
        unit = "lines" if rule == "line" else "documents"
        return ((text, None) for text in require_utf8(path, texts, unit, lambda text: [text or ""]))
    parse = functools.partial(_raw_document, source)
    return parse_records(
        path, read_records(path, format, quotes=source.get("quotes")), parse, malformed
    )


def _raw_document(source: dict, record: Record) -> Iterator[RawDocument]:
    text_field, spans_field = source.get("text", "text"), source.get("spans")
    if record.fields is None:
        yield None, None
        return
    require_fields(record, [text_field] if spans_field is None else [text_field, spans_field])
    text = record.fields[text_field]
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise MalformedRecord(
            f"{record.where}: field {text_field!r} holds {type(text).__name__}, not text; "
            "fix the record or name another field in `text`"
        )
    value = None if spans_field is None else record.fields[spans_field]
    where = f"{record.where}, field {spans_field!r}"
    yield text, parse_spans(value, len(text), where, source.get("span_labels"))


def parse_spans(
    value: Any, length: int, where: str, labels: Sequence[str] | None = None
) -> Spans | None:
    """Return toxic spans as sorted, disjoint ranges [start, end) within a text of `length`.

    `value` is a list of [start, end] pairs or of single character offsets, or such a list written
    as a string; None or "" where the truth is not known (returned as None). Spans with labels, as
    annotation tools export them, are [start, end, label] or objects with `start` and `end` (or
    `start_offset` and `end_offset`) and a `label`; `labels` are those that count, None: all.

    Raises MalformedRecord, beginning with `where`, for anything else and for offsets outside the
    text.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _parse_list(value)
    if not isinstance(value, list | tuple):
        raise MalformedRecord(f"{where}: not a list of spans; write [[start, end], ...]")
    ranges: list[tuple[int, int]] = []
    for item in value:
        start, end, label = _span(item)
        if not (_is_offset(start) and _is_offset(end)):
            raise MalformedRecord(
                f"{where}: {reprlib.repr(item)} is neither an offset nor a [start, end] pair"
            )
        if label is not None and labels is not None and label not in labels:
            continue
        if start > end:
            raise MalformedRecord(
                f"{where}: {reprlib.repr(item)} ends before it begins; write [start, end]"
            )
        if not 0 <= start <= end <= length:
            raise MalformedRecord(
                f"{where}: {reprlib.repr(item)} lies outside the text of {length} characters; "
                "offsets count characters from 0, ends are exclusive"
            )
        ranges.append((start, end))
    return _merge(ranges)


def _span(item: Any) -> tuple[Any, Any, str | None]:
    """Return start, end and label of a span, what is not there as None."""
    match item:
        case int():
            return item, item + 1, None
        case [start, end]:
            return start, end, None
        case [start, end, str(label)]:
            return start, end, label
        case {"start": start, "end": end} | {"start_offset": start, "end_offset": end}:
            label = item.get("label")
            return start, end, label if isinstance(label, str) else None
    return None, None, None


def _parse_list(text: str) -> Any:
    """Return the list that `text` holds in the syntax of JSON or of Python, or None."""
    pairs = _TUPLE.sub(r"[\1]", text).strip()
    if pairs.startswith("(") and pairs.endswith(")"):
        pairs = f"[{pairs[1:-1]}]"
    try:
        return json.loads(_LAST_COMMA.sub("", pairs))
    except (ValueError, RecursionError):
        return None


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _merge(ranges: Iterable[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return tuple(merged)


def split_text(
    lines: Iterable[Line], rule: str, maximum_characters: int = MAXIMUM_CHARACTERS
) -> Iterator[str | None]:
    """Yield the documents of plain text; None stands for one longer than `maximum_characters`.

    `rule` is "line", "paragraph" (separated by lines of only white space), "file", or "heading"
    (a line ` = Title = ` between two blank lines starts a document, as in WikiText).
    """
    if rule == "line":
        yield from (line.text for line in lines)
        return
    document: list[str] = []
    characters = 0
    for before, line, after in with_neighbours(lines):
        starts = (rule == "paragraph" and _is_blank(line)) or (
            rule == "heading"
            and line.text is not None
            and _TITLE.fullmatch(line.text)
            and _is_blank(before)
            and _is_blank(after)
        )
        if starts:
            if characters:
                yield None if characters > maximum_characters else "\n".join(document)
            document, characters = [], 0
        if rule == "paragraph" and _is_blank(line):
            continue
        if line.text is None:
            characters = maximum_characters + 1
        elif document or line.text.strip():
            characters += len(line.text) + 1
            if characters <= maximum_characters:
                document.append(line.text)
    if characters:
        yield None if characters > maximum_characters else "\n".join(document)


def _is_blank(line: Line | None) -> bool:
    return line is None or (line.text is not None and not line.text.strip())

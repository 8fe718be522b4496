"""The Parquet files of an exported selection: spans by document, and label masks by tokenizer.

PyArrow is imported where it is used: what a training loop imports does without.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.files.artifacts import atomic_path
from ifguide.files.checksums import verify
from ifguide.influence.character_spans import Spans

DOCUMENTS_AT_ONCE = 4096


@dataclass(frozen=True)
class ExportedDocument:
    """A source document as an export knows it: not its text, but the SHA-256 of that in UTF-8.

    spans: None where nothing is selected.
    """

    document: int
    source: str
    sha256: str
    characters: int
    spans: Spans | None

    def as_dict(self) -> dict[str, Any]:
        spans = []
        if self.spans is not None:
            columns = (getattr(self.spans, name).tolist() for name in SPAN_FIELDS)
            spans = [dict(zip(SPAN_FIELDS, row, strict=True)) for row in zip(*columns, strict=True)]
        return {
            "document": self.document,
            "source": self.source,
            "sha256": self.sha256,
            "characters": self.characters,
            "spans": spans,
        }


@dataclass(frozen=True)
class LabelMask:
    """A document's tokens, int64 (tokens,), and which of them are selected, bool (tokens,)."""

    document: int
    sha256: str
    input_ids: np.ndarray
    selected: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        return {
            "document": self.document,
            "sha256": self.sha256,
            "input_ids": self.input_ids,
            "selected": self.selected,
        }


SPAN_FIELDS = ("start", "end", "tokens", "score", "ranking_score")


def write_spans(path: Path, documents: Iterable[ExportedDocument]) -> dict[str, int]:
    """Write the spans of documents, a row each, and return what was written.

    Counts: documents, those with spans, spans, their characters, and the selected tokens in them.
    """
    import pyarrow as pa

    whole, real = pa.int32(), pa.float32()
    span = pa.struct(zip(SPAN_FIELDS, (whole, whole, whole, real, real), strict=True))
    schema = pa.schema(
        {
            "document": pa.int64(),
            "source": pa.string(),
            "sha256": pa.string(),
            "characters": whole,
            "spans": pa.list_(span),
        }
    )
    counts = dict.fromkeys(
        ("documents", "documents_with_spans", "spans", "span_characters", "tokens"), 0
    )

    def counted() -> Iterator[dict[str, Any]]:
        for document in documents:
            counts["documents"] += 1
            if document.spans is not None and len(document.spans.start):
                counts["documents_with_spans"] += 1
                counts["spans"] += len(document.spans.start)
                counts["span_characters"] += document.spans.characters
                counts["tokens"] += int(document.spans.tokens.sum())
            yield document.as_dict()

    _write_rows(path, schema, counted())
    return counts


def write_label_masks(path: Path, masks: Iterable[LabelMask]) -> None:
    """Write the tokens of documents and which of them are selected, a row each."""
    import pyarrow as pa

    schema = pa.schema(
        {
            "document": pa.int64(),
            "sha256": pa.string(),
            "input_ids": pa.list_(pa.int32()),
            "selected": pa.list_(pa.bool_()),
        }
    )
    _write_rows(path, schema, (mask.as_dict() for mask in masks))


def _write_rows(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as Parquet, some at a time, so that memory does not grow with the corpus."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    rows = iter(rows)
    with atomic_path(path) as temporary, ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(rows, DOCUMENTS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_spans(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of spans, in order. Raises InputError where it is damaged."""
    from pyarrow.parquet import ParquetFile

    verify(path)
    with ParquetFile(path) as file:
        for batch in file.iter_batches(DOCUMENTS_AT_ONCE):
            yield from batch.to_pylist()

"""A corpus tokenized in parts, apart from each other, whose tokens are then packed in order.

Where a block begins depends on every document before it, so that packing is one job; tokenizing,
which takes most of the time, is one job a part.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ifguide.data.corpus import TokenStream
from ifguide.data.documents import Document
from ifguide.files.artifacts import open_array, read_json, require_same, write_array, write_json

# Truth is -1 where nobody knows it.
TOKEN = np.dtype([("id", "<u4"), ("document", "<i4"), ("truth", "i1")])


def numbered_documents(records: Iterable[dict]) -> Iterator[tuple[int, Document]]:
    """Yield the id and the document of each record of `documents.jsonl`."""
    for record in records:
        spans = record["spans"]
        if spans is not None:
            spans = tuple((start, end) for start, end in spans)
        yield record["document"], Document(record["text"], spans, record["source"])


def write_part(path: Path, streams: Iterable[TokenStream], made_from: dict[str, str]) -> int:
    """Write the tokens of some documents, and beside them what they were made from.

    An array of TOKEN, (tokens,). The stream passes through a flat file, so memory does not grow
    with the part. Returns the number of tokens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as flat:
        for stream in streams:
            tokens = np.empty(len(stream.ids), TOKEN)
            tokens["id"], tokens["document"] = stream.ids, stream.document
            tokens["truth"] = -1 if stream.truth is None else stream.truth
            flat.write(tokens.tobytes())
        flat.flush()
        written = np.memmap(flat, TOKEN, "r") if flat.tell() else np.zeros(0, TOKEN)
        write_array(path, written)
    write_json(path.with_suffix(".json"), made_from)
    return len(written)


def read_part(path: Path, made_from: dict[str, str], rows: int = 2**20) -> Iterator[TokenStream]:
    """Yield the token stream of each document of a part, which is searched `rows` tokens at a time.

    Raises InputError where the file is damaged or was made from something else.
    """
    record = read_json(path.with_suffix(".json"))
    for what, expected in made_from.items():
        require_same(what, expected, record[what], path)
    tokens = open_array(path)
    for start, stop in _documents(tokens["document"], rows):
        document = np.array(tokens[start:stop])
        truth = None if document["truth"][0] < 0 else document["truth"].astype(bool)
        yield TokenStream(int(document["document"][0]), document["id"], truth)


def _documents(owner: np.ndarray, rows: int) -> Iterator[tuple[int, int]]:
    """Yield where each document of `owner`, the document of each token, begins and ends."""
    begin = 0
    for first in range(0, len(owner), rows):
        before = owner[first - 1] if first else owner[0]
        for stop in first + np.flatnonzero(np.diff(owner[first : first + rows], prepend=before)):
            yield begin, int(stop)
            begin = int(stop)
    if len(owner):
        yield begin, len(owner)

"""A corpus tokenized in parts, apart from each other, whose tokens are then packed in order.

Where a block begins depends on every document before it, so that packing is one job; tokenizing,
which takes most of the time, is one job a part.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ifguide.artifacts import require_same
from ifguide.corpus import TokenStream
from ifguide.documents import Document
from ifguide.tensor_files import read_tensors, write_tensors


def numbered_documents(records: Iterable[dict]) -> Iterator[tuple[int, Document]]:
    """Yield the id and the document of each record of `documents.jsonl`."""
    for record in records:
        spans = record["spans"]
        if spans is not None:
            spans = tuple((start, end) for start, end in spans)
        yield record["document"], Document(record["text"], spans, record["source"])


def write_part(path: Path, streams: Iterable[TokenStream], made_from: dict[str, str]) -> int:
    """Write the tokens of some documents, and what they were made from; return their number.

    ids: int32, truth: bool, both (tokens,). documents: int32, lengths: int64, known: bool, each
    (documents,), say whose tokens follow one another, how many, and whether their truth is known.
    Memory grows with the part.
    """
    # The empty arrays give a part without documents its types.
    ids, truths = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    documents, lengths, known = [], [], []
    for stream in streams:
        ids.append(stream.ids.astype(np.int32))
        truths.append(np.zeros(len(stream.ids), bool) if stream.truth is None else stream.truth)
        documents.append(stream.document)
        lengths.append(len(stream.ids))
        known.append(stream.truth is not None)
    tensors = {
        "ids": torch.from_numpy(np.concatenate(ids)),
        "truth": torch.from_numpy(np.concatenate(truths)),
        "documents": torch.tensor(documents, dtype=torch.int32),
        "lengths": torch.tensor(lengths, dtype=torch.int64),
        "known": torch.tensor(known, dtype=torch.bool),
    }
    write_tensors(path, tensors, made_from)
    return len(tensors["ids"])


def read_part(path: Path, made_from: dict[str, str]) -> Iterator[TokenStream]:
    """Yield the token streams of a part.

    Raises InputError where the file is damaged or was made from something else.
    """
    tensors, metadata = read_tensors(path)
    for what, expected in made_from.items():
        require_same(what, expected, metadata.get(what, "nothing"), path)
    columns = {name: tensor.numpy() for name, tensor in tensors.items()}
    ends = np.cumsum(columns["lengths"])
    for document, length, end, known in zip(
        columns["documents"], columns["lengths"], ends, columns["known"], strict=True
    ):
        tokens = slice(end - length, end)
        truth = columns["truth"][tokens] if known else None
        yield TokenStream(int(document), columns["ids"][tokens], truth)

"""The files of a selection: mask shards, verified against the record beside them."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, ShardedArray, shard_name
from ifguide.files.artifacts import (
    open_array,
    read_json,
    require_same,
    write_array,
    write_array_in_parts,
)


def write_mask(directory: Path, masks: Iterable[np.ndarray]) -> dict:
    """Write the mask of each shard (bool, shape of the tokens) and return what records them."""
    return _mask_record(
        write_array(directory / "mask" / shard_name(shard), mask)
        for shard, mask in enumerate(masks)
    )


def write_mask_in_parts(
    directory: Path, shards: Iterable[tuple[tuple[int, int], int]], parts: Iterator[np.ndarray]
) -> dict:
    """Write masks of which one part after another is made; return what records them.

    shards: the shape of each, and how many of the parts, bool in order, make it up.
    """
    return _mask_record(
        write_array_in_parts(
            directory / "mask" / shard_name(shard), shape, np.bool_, islice(parts, count)
        )
        for shard, (shape, count) in enumerate(shards)
    )


def _mask_record(checksums: Iterable[str]) -> dict:
    checksums = list(checksums)
    digest = hashlib.sha256("".join(checksums).encode()).hexdigest()
    return {"shards_sha256": checksums, "mask_sha256": digest}


def open_mask(directory: Path, corpus: Corpus) -> tuple[ShardedArray, dict]:
    """Open the mask shards (bool, shape of the tokens) of a selection folder, and its record.

    Raises InputError where the selection was made on another corpus, or where a shard is missing or
    differs from its recorded checksum.
    """
    record = read_json(directory / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], directory)
    shards = [
        open_array(directory / "mask" / shard_name(shard), checksum)
        for shard, checksum in enumerate(record["shards_sha256"])
    ]
    return ShardedArray(shards), record

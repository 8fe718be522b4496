"""The files of a selection: mask shards, verified against the record beside them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, ShardedArray, shard_name
from ifguide.errors import InputError
from ifguide.files.artifacts import (
    open_array,
    read_json,
    require_same,
    write_array,
    write_array_in_parts,
)
from ifguide.files.checksums import RecordedTogether, joined_sha256, recorded_sha256, remedy


def write_mask(directory: Path, masks: Sequence[np.ndarray]) -> dict:
    """Write the mask of each shard (bool, shape of the tokens) and return what records them."""
    paths = _mask_paths(directory, len(masks))
    with RecordedTogether(paths) as together:
        for path, mask in zip(paths, masks, strict=True):
            write_array(path, mask, together.publish)
    return {"mask_sha256": _mask_sha256(paths)}


def write_mask_in_parts(
    directory: Path, shards: Iterable[tuple[tuple[int, int], int]], parts: Iterator[np.ndarray]
) -> dict:
    """Write masks of which one part after another is made; return what records them.

    shards: the shape of each, and how many of the parts, bool in order, make it up.
    """
    shards = list(shards)
    paths = _mask_paths(directory, len(shards))
    with RecordedTogether(paths) as together:
        for path, (shape, count) in zip(paths, shards, strict=True):
            write_array_in_parts(path, shape, np.bool_, islice(parts, count), together.publish)
    return {"mask_sha256": _mask_sha256(paths)}


def _mask_paths(directory: Path, shards: int) -> list[Path]:
    return [directory / "mask" / shard_name(shard) for shard in range(shards)]


def _mask_sha256(paths: Sequence[Path]) -> str:
    return joined_sha256(recorded_sha256(path) for path in paths)


def open_mask(directory: Path, corpus: Corpus) -> tuple[ShardedArray, dict]:
    """Open the mask shards (bool, shape of the tokens) of a selection folder, and its record.

    Raises InputError where the selection was made on another corpus or is of another mask, and
    where a shard is missing or damaged.
    """
    record = read_json(directory / "selection.json")
    require_same("tokens", corpus.content_sha256, record["tokens_sha256"], directory)
    paths = _mask_paths(directory, len(corpus.meta["shards"]))
    shards = [open_array(path) for path in paths]
    require_same("mask", _mask_sha256(paths), record["mask_sha256"], directory / "selection.json")
    return ShardedArray(shards), record


def require_partial_mask(mask: ShardedArray, corpus: Corpus, directory: Path) -> None:
    """Refuse a mask of another shape than the tokens, or one that marks no token or every one."""
    shapes = [shard.shape for shard in mask.shards]
    expected = [shard.shape for shard in corpus.tokens.shards]
    if shapes != expected:
        raise InputError(
            f"{directory}: the mask's shards are {shapes}, but those of the tokens {expected}; "
            f"{remedy(directory)}"
        )
    selected = sum(int(shard.sum()) for shard in mask.shards)
    if selected == 0:
        raise InputError(f"{directory}: the mask selects no token, so nothing is suppressed")
    if selected >= corpus.meta["tokens"]:
        raise InputError(
            f"{directory}: the mask selects all {selected} tokens, so nothing is left to learn; "
            "lower influence.selections.*.limit"
        )

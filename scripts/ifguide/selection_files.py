"""The files of a selection: mask shards, verified against the record beside them."""

from pathlib import Path

from ifguide.artifacts import open_array
from ifguide.corpus import ShardedArray, shard_name


def open_mask(directory: Path, record: dict) -> ShardedArray:
    """Open the mask shards (bool, shape of the tokens) of a selection folder.

    Raises InputError where a shard is missing or differs from its recorded checksum.
    """
    return ShardedArray(
        [
            open_array(directory / "mask" / shard_name(shard), checksum)
            for shard, checksum in enumerate(record["shards_sha256"])
        ]
    )

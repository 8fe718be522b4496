"""Score shards on the disk, and what they have to be made from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus
from ifguide.files.artifacts import canonical_json, open_array, read_json, require_same, text_sha256
from ifguide.files.checksums import joined_sha256
from ifguide.files.tensor_metadata import TENSORS, read_metadata

MADE_FROM = ("weights_sha256", "direction_sha256", "settings_sha256")


def scores_made_from(directions: Sequence[Path], settings: dict) -> dict[str, str]:
    """Return the hashes of what scores along a direction, or averaged over several, come from.

    directions: their files. settings: those that the scores are made with.
    """
    metadata = [read_metadata(path) for path in directions]
    return {
        "weights_sha256": _joined([record["weights_sha256"] for record in metadata]),
        "direction_sha256": _joined([record[TENSORS] for record in metadata]),
        "settings_sha256": text_sha256(canonical_json(settings)),
    }


def _joined(checksums: list[str]) -> str:
    if len(checksums) == 1:
        return checksums[0]
    return joined_sha256(checksums)


def open_scores(
    paths: Sequence[Path], corpus: Corpus, made_from: dict[str, str]
) -> list[np.ndarray]:
    """Open all score shards, memory-mapped: float32 (blocks, T) each.

    made_from: the hashes `MADE_FROM`. Raises InputError, with both hashes, for a shard of another
    corpus, model, direction or setting, and where one is damaged.
    """
    shards = []
    for path in paths:
        record = read_json(path.with_suffix(".json"))
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], path)
        found = {**record, "settings_sha256": text_sha256(canonical_json(record["settings"]))}
        for name in MADE_FROM:
            require_same(name.removesuffix("_sha256"), made_from[name], found[name], path)
        shards.append(open_array(path))
    return shards

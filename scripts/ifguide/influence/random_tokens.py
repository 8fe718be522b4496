"""Random tokens in the place of selected ones: the control of a selection."""

from collections.abc import Sequence

import numpy as np

from ifguide.seeds import derive_seed

_KEYS = 2**64


def random_masks(documents: Sequence[np.ndarray], count: int, seed: int) -> list[np.ndarray]:
    """Return masks with `count` label tokens, drawn uniformly from the whole corpus.

    documents: the documents column of each shard, int (blocks, T), negative where there is padding.
    Column 0 is no label and never drawn. Each label token has a 64-bit key from the seed, its
    block's index and its column; those with the smallest keys are taken, so the division into
    shards changes nothing. Only keys that can be among them are held in memory.

    Raises ValueError where there are fewer label tokens than `count`.
    """
    labels = [_labels(shard) for shard in documents]
    total = sum(int(shard.sum()) for shard in labels)
    if count > total:
        raise ValueError(f"{count} tokens wanted, but there are {total} label tokens")
    if count == 0:
        return [np.zeros_like(shard) for shard in labels]
    # Twelve standard deviations beyond the expected key of the last token taken.
    share = min(1.0, (count + 12 * (count + 1) ** 0.5) / total)
    candidates = np.concatenate(
        [keys[keys < share * _KEYS] for keys in _label_keys(labels, seed)]
        if share < 1
        else list(_label_keys(labels, seed))
    )
    last = np.partition(candidates, count - 1)[count - 1]
    return [
        shard & (_keys(first, shard.shape, seed) <= last)
        for first, shard in zip(_first_blocks(labels), labels, strict=True)
    ]


def _labels(documents: np.ndarray) -> np.ndarray:
    labels = documents >= 0
    labels[:, 0] = False
    return labels


def _first_blocks(shards: Sequence[np.ndarray]) -> list[int]:
    return [int(first) for first in np.cumsum([0, *map(len, shards)])[:-1]]


def _keys(first_block: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    keys = np.empty(shape, np.uint64)
    for row in range(len(keys)):
        generator = np.random.default_rng(derive_seed(seed, "block", first_block + row))
        keys[row] = generator.integers(0, _KEYS, size=shape[1], dtype=np.uint64)
    return keys


def _label_keys(labels: Sequence[np.ndarray], seed: int):
    for first, shard in zip(_first_blocks(labels), labels, strict=True):
        yield _keys(first, shard.shape, seed)[shard]

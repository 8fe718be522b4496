"""The sample of blocks that EK-FAC factors are computed from, and its division into shards."""

from collections.abc import Iterator

import numpy as np
import torch

from ifguide.corpus import Corpus
from ifguide.ekfac import Batch
from ifguide.seeds import derive_seed


def sampled_blocks(corpus_blocks: int, sample: int | None, seed: int) -> np.ndarray:
    """Return the indices of the sampled blocks; a smaller sample is the beginning of a larger one.

    `sample` None means every block.
    """
    order = np.random.default_rng(derive_seed(seed, "factor blocks")).permutation(corpus_blocks)
    return order[:sample]


def shard_of_sample(blocks: np.ndarray, shard: int, shards: int) -> np.ndarray:
    """Return the blocks of one shard, in corpus order."""
    return np.sort(np.array_split(blocks, shards)[shard])


def block_batches(
    corpus: Corpus, blocks: np.ndarray, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Yield the named blocks of `corpus` in batches."""
    for start in range(0, len(blocks), batch_size):
        indices = [int(index) for index in blocks[start : start + batch_size]]
        tokens = torch.from_numpy(corpus.tokens.rows(indices).astype(np.int64))
        valid = torch.from_numpy(np.stack([corpus.valid(index) for index in indices]))
        yield Batch(tokens.to(device), valid.to(device), indices)

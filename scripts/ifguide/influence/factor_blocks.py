"""What EK-FAC factors are computed from: a sample of blocks, in groups, and of their positions."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ifguide.data.corpus import Corpus
from ifguide.influence.ekfac import Batch
from ifguide.influence.label_gradients import uniform_numbers
from ifguide.seeds import derive_seed

# As many jobs as there can be, and the depth to which sums wait for one another in memory.
MOST_GROUPS = 64


def sampled_blocks(corpus_blocks: int, sample: int | None, seed: int) -> np.ndarray:
    """Return the indices of the sampled blocks; a smaller sample is the beginning of a larger one.

    `sample` None means every block.
    """
    order = np.random.default_rng(derive_seed(seed, "factor blocks")).permutation(corpus_blocks)
    return order[:sample]


def block_groups(blocks: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Divide sampled blocks, in corpus order, into at most `MOST_GROUPS` groups of whole batches.

    The groups are what jobs are made of, and do not depend on their number.
    """
    ordered = np.sort(blocks)
    batches = np.arange(0, len(ordered), batch_size)
    firsts = [part[0] for part in np.array_split(batches, min(len(batches), MOST_GROUPS))]
    return np.split(ordered, firsts[1:])


def groups_of_shard(groups: int, shard: int, shards: int) -> range:
    """Return the indices of the groups that one job of several takes; some may get none."""
    return range(shard * groups // shards, (shard + 1) * groups // shards)


def drawn_positions(
    indices: Sequence[int], length: int, share: float, seed: int
) -> torch.Tensor | None:
    """Draw a share of the positions of each block, by its index alone: bool (blocks, length).

    As many of each block, at least one; None where that is all of them.
    """
    count = max(1, round(share * length))
    if count == length:
        return None
    numbers = uniform_numbers(
        indices, length, lambda index: derive_seed(seed, "covariance positions", index)
    )
    drawn = torch.zeros(numbers.shape, dtype=torch.bool)
    return drawn.scatter_(1, numbers.argsort(1)[:, :count], True)


def block_batches(
    corpus: Corpus,
    blocks: np.ndarray,
    batch_size: int,
    device: torch.device,
    *,
    positions: float = 1.0,
    seed: int = 0,
) -> Iterator[Batch]:
    """Yield the named blocks of `corpus` in batches.

    Of each block, covariances are summed over a share `positions`, drawn with `seed`.
    """
    for start in range(0, len(blocks), batch_size):
        indices = [int(index) for index in blocks[start : start + batch_size]]
        tokens = torch.from_numpy(corpus.tokens.rows(indices).astype(np.int64))
        valid = torch.from_numpy(np.stack([corpus.valid(index) for index in indices]))
        drawn = drawn_positions(indices, corpus.block_size, positions, seed)
        yield Batch(
            tokens.to(device),
            valid.to(device),
            indices,
            None if drawn is None else drawn.to(device),
        )

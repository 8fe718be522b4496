"""The blocks of a training: what a batch holds, in which order, and how a step is divided."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from ifguide.data.corpus import Corpus, ShardedArray
from ifguide.errors import InputError
from ifguide.models.labels import IGNORED_LABEL, mark_labels


class Blocks(Dataset):
    """Training blocks; of the labels, those of a selection mask are marked as suppressed.

    hidden: the id that the model reads in the place of a selected token; None leaves it there.
    The index after the last is an empty block: no label, so no loss. It fills up an epoch's last
    step, which is then divided among processes like any other.
    """

    def __init__(
        self, corpus: Corpus, mask: ShardedArray | None, hidden: int | None = None
    ) -> None:
        self.corpus = corpus
        self.mask = mask
        self.hidden = hidden

    def __len__(self) -> int:
        return len(self.corpus.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == len(self):
            empty = torch.zeros(self.corpus.block_size, dtype=torch.int64)
            return {"input_ids": empty, "labels": torch.full_like(empty, IGNORED_LABEL)}
        tokens = self.corpus.tokens[index].astype(np.int64)
        valid = self.corpus.valid(index)
        valid[0] = False  # no token comes before the first: it is no label
        labels, read = np.where(valid, tokens, IGNORED_LABEL), tokens
        if self.mask is not None:
            selected = self.mask[index].astype(bool)
            labels = mark_labels(labels, selected)
            if self.hidden is not None:
                read = np.where(selected, self.hidden, tokens)
        return {"input_ids": torch.from_numpy(read), "labels": torch.from_numpy(labels)}


class BlockOrder(Sampler[int]):
    """Each epoch's order of blocks, filled up with empty ones to whole steps.

    The order depends on the seed and the epoch alone, so every step has the same blocks however
    many processes share it, and after a resumption.
    """

    def __init__(self, blocks: int, blocks_per_step: int, seed: int) -> None:
        self.blocks = blocks
        self.length = -(-blocks // blocks_per_step) * blocks_per_step
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.randperm(self.blocks, generator=generator).tolist()
        yield from [self.blocks] * (self.length - self.blocks)


class OrderOfEpoch(TrainerCallback):
    """Tell the order of blocks its epoch, which the Trainer's data loaders do not always do.

    They do not reach it when several processes resume in the middle of an epoch.
    """

    def __init__(self, order: BlockOrder) -> None:
        self.order = order

    def on_epoch_begin(self, arguments, state, control, **_):
        self.order.set_epoch(int(state.epoch or 0))


def divide_step(batch_size: int, accumulation: int, processes: int) -> tuple[int, int]:
    """Return the batch size and accumulation of each process: a step has the same blocks for any.

    The batch size stays where it can, and shrinks where the accumulation is not a multiple of the
    processes. Raises InputError where the blocks of a step cannot be divided equally.
    """
    blocks, rest = divmod(batch_size * accumulation, processes)
    if rest:
        raise InputError(
            f"config key training.batch_size: a step of {batch_size} × {accumulation} blocks "
            f"cannot be divided among {processes} processes; change `accumulation`, or the number "
            "of processes"
        )
    largest = max(size for size in range(1, batch_size + 1) if blocks % size == 0)
    return largest, blocks // largest

"""Sums over groups of blocks that are the same bits however the groups are divided among jobs.

Floating-point addition rounds, so the same numbers added in another order have other last bits.
Here the order is that of a binary tree over the groups: 0 + 1, 2 + 3, then (0 + 1) + (2 + 3), and
so on. A job adds what lies wholly among its own groups, which must follow one another; the total
adds the rest. Whoever makes an addition, it is of the same two numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ifguide.influence.ekfac import Statistics


@dataclass(frozen=True)
class PartialSum:
    """The sums over 2^level groups, from group index · 2^level on."""

    level: int
    index: int
    sums: Statistics

    @property
    def first_group(self) -> int:
        return self.index << self.level


def add_neighbours(partial_sums: Iterable[PartialSum]) -> list[PartialSum]:
    """Add the two halves of each node of the tree whose halves are both there.

    partial_sums: in order of their groups. They are added in place, and few are held at a time.
    """
    held: list[PartialSum] = []
    for partial_sum in partial_sums:
        held.append(partial_sum)
        while len(held) > 1 and _are_halves(held[-2], held[-1]):
            _add_last(held)
    return held


def total(partial_sums: Iterable[PartialSum]) -> tuple[Statistics, int]:
    """Return the sums over all groups and the number of groups.

    Raises ValueError where the partial sums, in order, leave a group out or have one twice.
    """
    held = add_neighbours(partial_sums)
    groups = 0
    for partial_sum in held:
        if partial_sum.first_group != groups:
            raise ValueError(f"group {groups} of the blocks is missing or there twice")
        groups += 1 << partial_sum.level
    while len(held) > 1:
        _add_last(held)
    return held[0].sums, groups


def _are_halves(left: PartialSum, right: PartialSum) -> bool:
    return left.level == right.level and left.index % 2 == 0 and right.index == left.index + 1


def _add_last(held: list[PartialSum]) -> None:
    """Replace the last two by their sum, which takes the left one's memory."""
    right, left = held.pop(), held.pop()
    # Names that share a tensor, as those of layers with one input do, go on sharing it.
    pairs = {id(tensor): (tensor, right.sums[name]) for name, tensor in left.sums.items()}
    for tensor, addend in pairs.values():
        tensor += addend
    held.append(PartialSum(left.level + 1, left.index // 2, left.sums))


def on_cpu(sums: Statistics) -> Statistics:
    """Return the sums in the processor's memory; names that share a tensor go on sharing it."""
    moved: dict[int, torch.Tensor] = {}
    return {name: moved.setdefault(id(t), t.cpu()) for name, t in sums.items()}

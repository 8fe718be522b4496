"""Sums that do not depend on how the groups of blocks are divided among jobs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifguide.influence.ordered_sums import PartialSum, add_neighbours, on_cpu, total


def sums_of_group(group: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(group)
    # Of many magnitudes, so that the order of additions shows in the last bits.
    values = torch.randn(50, generator=generator) * 10.0 ** (group % 7)
    return {"values": values, "blocks": torch.tensor(float(group), dtype=torch.float64)}


def jobs(groups: int, starts: list[int]) -> list[PartialSum]:
    """What jobs that begin at the given groups leave, in order."""
    bounds = sorted({0, groups, *(start % groups for start in starts)})
    return [
        partial_sum
        for start, stop in zip(bounds, bounds[1:], strict=False)
        for partial_sum in add_neighbours(
            PartialSum(0, group, sums_of_group(group)) for group in range(start, stop)
        )
    ]


@given(groups=st.integers(1, 70), starts=st.lists(st.integers(0, 70)))
def test_any_division_into_jobs_gives_the_same_bits(groups, starts):
    whole, counted = total(jobs(groups, []))
    divided, counted_too = total(jobs(groups, starts))
    assert counted == counted_too == groups
    assert torch.equal(whole["values"], divided["values"])
    assert whole["blocks"] == sum(range(groups))
    exact = sum(sums_of_group(group)["values"].double() for group in range(groups))
    torch.testing.assert_close(whole["values"].double(), exact, rtol=1e-5, atol=1.0)


def test_the_order_would_show_otherwise():
    one_by_one = sum(sums_of_group(group)["values"] for group in range(64))
    assert not torch.equal(total(jobs(64, []))[0]["values"], one_by_one)


def test_few_sums_are_held_at_a_time():
    assert [node.level for node in add_neighbours(jobs(64, []))] == [6]
    assert [node.level for node in add_neighbours(jobs(63, []))] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("kept", [[0, 1, 3], [1, 2, 3], [0, 0, 1, 2], [0, 2, 1, 3]])
def test_groups_that_are_missing_twice_there_or_out_of_order(kept):
    with pytest.raises(ValueError, match="missing or there twice"):
        total(PartialSum(0, group, sums_of_group(group)) for group in kept)


def test_names_that_share_a_tensor_are_added_once_and_go_on_sharing_it():
    def shared(group: int) -> PartialSum:
        tensor = torch.full((3,), float(group))
        return PartialSum(0, group, on_cpu({"query": tensor, "key": tensor}))

    sums, _ = total(map(shared, range(4)))
    assert sums["query"] is sums["key"]
    assert sums["query"].tolist() == [6.0] * 3

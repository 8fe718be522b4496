"""The cache with room holds what the library's own one holds, whatever is done to it."""

import torch
from transformers import DynamicCache

from ifguide.models.roomy_cache import RoomyLayer, share_out

HEADS, WIDTH = 2, 3


def filled(rows: int, length: int) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(2):
        cache.update(*new_states(rows, length, seed=layer), layer)
    return cache


def new_states(rows: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, HEADS, length, WIDTH, generator=generator)
    return keys, values


def test_steps_crops_and_rows_that_leave_give_the_same_states():
    roomy, plain = filled(2, 5), filled(2, 5)
    share_out(roomy, copies=3, room=4)
    plain.batch_repeat_interleave(3)
    assert all(isinstance(layer, RoomyLayer) for layer in roomy.layers)
    going = torch.tensor([0, 2, 3, 5])
    steps = [
        lambda cache: [cache.update(*new_states(6, 1, seed=7), layer) for layer in range(2)],
        lambda cache: cache.batch_select_indices(going),
        lambda cache: [cache.update(*new_states(4, 2, seed=8), layer) for layer in range(2)],
        # More than there is room for, less again, and once more.
        lambda cache: [cache.update(*new_states(4, 30, seed=9), layer) for layer in range(2)],
        lambda cache: cache.crop(-31),
        lambda cache: [cache.update(*new_states(4, 3, seed=10), layer) for layer in range(2)],
    ]
    for step in steps:
        for cache in (roomy, plain):
            step(cache)
        assert roomy.get_seq_length() == plain.get_seq_length()
        for one, other in zip(roomy.layers, plain.layers, strict=True):
            assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_a_token_copies_no_other():
    cache = filled(2, 5)
    share_out(cache, copies=3, room=4)
    before = cache.layers[0].keys.data_ptr()
    keys, _ = cache.update(*new_states(6, 1, seed=7), 0)
    assert keys.data_ptr() == before and keys.shape == (6, HEADS, 6, WIDTH)

"""A key-value cache with room for what is to come, so that a new token copies no old one."""

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, views (rows, heads, T, width) of tensors with a larger T.

    The library's own layer that grows copies itself at every token.
    """

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int) -> None:
        """Begin with these rows (indices, repeated ones too) of a filled layer; room: tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self.capacity = layer.get_seq_length() + room
        self.batch_select_indices(rows)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        stores = []
        for states in (self.keys, self.values):
            _, heads, _, width = states.shape
            store = states.new_empty(len(indices), heads, self.capacity, width)
            store[:, :, :length] = states[indices]
            stores.append(store)
        self.stores = stores
        self.keys, self.values = (store[:, :, :length] for store in stores)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        if stop > self.capacity:
            self.capacity = 2 * stop
            self.batch_select_indices(torch.arange(len(self.keys), device=self.device))
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, start:stop] = states
        self.keys, self.values = (store[:, :, :stop] for store in self.stores)
        return self.keys, self.values


def share_out(cache: Cache, copies: int, room: int) -> None:
    """Repeat each row of a filled cache `copies` times, with room for so many tokens more.

    Layers of another kind, such as those of a sliding window, are repeated as they are.
    """
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.get_seq_length():
            rows = torch.arange(len(layer.keys), device=layer.device).repeat_interleave(copies)
            cache.layers[place] = RoomyLayer(layer, rows, room)
        else:
            layer.batch_repeat_interleave(copies)

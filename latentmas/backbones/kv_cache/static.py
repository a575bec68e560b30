"""A state of fixed size at fixed addresses, over which a CUDA graph can be replayed.

Shapes: `B` rows, `T` new positions, `L` positions so far, `C` capacity, `D` width, `S` numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, LinearAttentionLayer, StaticLayer

from latentmas.backbones.kv_cache.buffers import Cursor, StaticBuffers
from latentmas.backbones.kv_cache.masks import Masks
from latentmas.backbones.kv_cache.state import KVCache, Snapshot, copied, is_recurrent

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone

__all__ = ["StaticKVCache"]


class StaticKVCache(KVCache):
    """Keys and values in buffers of C columns; sliding windows are applied by the mask.

    All that a step of one position reads and writes has a fixed address: `x_B1D`, `h_BD`,
    `token_B`, `choice_BS`, `position_B`, `column`, `mask_BC` and the layers' buffers. `length` is
    the host's count. All of it is a view of `StaticBuffers`, whose states share one count and one
    content.
    """

    def __init__(self, backbone: LoadedBackbone, rows: int, capacity: int) -> None:
        """A state with buffers of its own.

        Args:
            backbone: Backbone whose `static_reason()` is None.
            rows: Number of rows B.
            capacity: Maximum number of positions C.
        """
        self._see(StaticBuffers(backbone, rows, capacity), rows, capacity)

    @classmethod
    def of(cls, buffers: StaticBuffers, rows: int, columns: int) -> StaticKVCache:
        """The state of the first rows and columns of some buffers."""
        made = cls.__new__(cls)
        made._see(buffers, rows, columns)
        return made

    def _see(self, buffers: StaticBuffers, rows: int, columns: int) -> None:
        self.rows, self.capacity = rows, columns
        self._cursor = buffers.cursor
        self.position_B = buffers.position_B[:rows]
        self.mask_BC = buffers.mask_BC[:rows, :columns]
        self.x_B1D, self.h_BD = buffers.x_B1D[:rows], buffers.h_BD[:rows]
        self.token_B, self.choice_BS = buffers.token_B[:rows], buffers.choice_BS[:rows]
        self.cache = Cache(
            layers=[_layer(own, rows, columns, buffers.cursor) for own in buffers.layers]
        )
        layers: list[Any] = self.cache.layers
        self._recurrent = [layer for layer in layers if is_recurrent(layer)]

    @property
    def length(self) -> int:
        """Number of positions read so far, L."""
        return self._cursor.length

    @property
    def column(self) -> Tensor:
        """Index of the next position to write, (1,)."""
        return self._cursor.column

    def refresh(self) -> None:
        """Tell the layers whether a position has been read, through whichever state it was."""
        for layer in self._recurrent:
            for number in layer.has_previous_state:
                layer.has_previous_state[number] = self.length > 0

    def advance(self, count: int) -> None:
        """Advance the host's count by the positions that a step has written."""
        self._cursor.length += count

    def place(self, mask_BL: Tensor, position_B: Tensor) -> None:
        """Update the buffers of a step after a prompt: its mask, and each row's next position.

        Rows of the state beyond those given are masked.
        """
        rows, length = mask_BL.shape
        self.column.fill_(self.length)
        self.position_B[:rows].copy_(position_B)
        self.mask_BC[:rows, :length] = mask_BL
        self.position_B[rows:].zero_()
        self.mask_BC[rows:].zero_()

    def buffers(self) -> list[Tensor]:
        """Buffers that a one-position step changes, except keys and values, which it rewrites."""
        found = [self.column, self.position_B, self.mask_BC, self.x_B1D, self.h_BD, self.token_B]
        for layer in self._recurrent:
            found += [*layer.conv_states.values(), *layer.recurrent_states.values()]
        return [tensor for tensor in found if tensor is not None]

    def masks(self, masks: Masks, mask_BL: Tensor, new: int, padded: bool) -> Any:
        """The decoder's attention mask; for one position it covers all columns."""
        if new == 1:
            return masks.fixed(self.mask_BC, self.column, padded=True)
        columns_T = torch.arange(self.length, self.length + new, device=mask_BL.device)
        return masks.fixed(mask_BL, columns_T, padded=padded)

    def snapshot(self) -> Snapshot:
        """A copy of the current contents."""
        return [self._of_layer(layer) for layer in self.cache.layers] + [{"length": self.length}]

    def _of_layer(self, layer: Any) -> dict[str, Any]:
        if is_recurrent(layer):
            return copied({"conv": layer.conv_states, "recurrent": layer.recurrent_states})  # type: ignore[no-any-return]
        written = slice(0, self.length)
        return {
            "keys": layer.keys[:, :, written].clone(),
            "values": layer.values[:, :, written].clone(),
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Copy a snapshot with the same number of rows into this state."""
        *layers, counted = snapshot
        self._cursor.length = counted["length"]
        for layer, fields in zip(self.cache.layers, layers, strict=True):
            _write(layer, fields, self.length)
        self.refresh()

    def put_keys_and_values(self, kept: Sequence[Tensor]) -> None:
        """Begin with these keys and values; those of a single row are written to all rows."""
        self._cursor.length = kept[0].shape[2]
        for layer, keys, values in zip(self.cache.layers, kept[::2], kept[1::2], strict=True):
            _write(layer, {"keys": keys, "values": values}, self.length)

    def can_merge(self) -> bool:
        """True: all layers are known."""
        return True


class _Fixed(StaticLayer):
    """Writes one position at the cursor's `column`, several positions at its `length`."""

    def __init__(self, keys: Tensor, values: Tensor, cursor: Cursor) -> None:
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values, self.cursor = keys, values, cursor
        self.is_initialized = True

    def get_seq_length(self) -> int:
        """The count on the host; transformers' own count is on the device."""
        return self.cursor.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of columns that `update` returns for several positions."""
        return self.cursor.length + query_length, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Write and return keys and values: of all columns (one position), or so far (several)."""
        assert self.keys is not None
        assert self.values is not None
        new = key_states.shape[-2]
        if new == 1:
            self.keys.index_copy_(2, self.cursor.column, key_states)
            self.values.index_copy_(2, self.cursor.column, value_states)
            return self.keys, self.values
        begin, end = self.cursor.length, self.cursor.length + new
        self.keys[:, :, begin:end] = key_states
        self.values[:, :, begin:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]


def _layer(own: dict[tuple[str, int], Tensor], rows: int, columns: int, cursor: Cursor) -> Any:
    """A layer over views of its tensors."""
    if ("keys", 0) in own:
        keys, values = own["keys", 0], own["values", 0]
        return _Fixed(keys[:rows, :, :columns], values[:rows, :, :columns], cursor)
    count = 1 + max(number for _, number in own)
    layer: Any = LinearAttentionLayer(number_of_states=count)
    for (name, number), tensor in own.items():
        getattr(layer, name)[number] = tensor[:rows]
        getattr(layer, f"is_{name}_initialized")[number] = True
        layer.dtype, layer.device = tensor.dtype, tensor.device
        if name == "conv_states":
            layer.conv_kernel_size[number] = tensor.shape[-1]
    return layer


def _write(layer: Any, fields: dict[str, Any], length: int) -> None:
    """Copy contents into a layer's buffers, which keep their addresses."""
    if not is_recurrent(layer):
        layer.keys[:, :, :length] = fields["keys"]
        layer.values[:, :, :length] = fields["values"]
        return
    for name, states in (("conv", layer.conv_states), ("recurrent", layer.recurrent_states)):
        for number, value in fields[name].items():
            if value is not None:
                states[number].copy_(value)

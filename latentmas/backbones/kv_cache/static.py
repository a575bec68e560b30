"""A state of fixed size at fixed addresses, over which a CUDA graph can be replayed.

Shapes: `B` rows, `T` new positions, `L` positions so far, `C` capacity, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, LinearAttentionLayer, StaticLayer

from latentmas.backbones.kv_cache.masks import LINEAR, Masks
from latentmas.backbones.kv_cache.state import KVCache, RowSelection, Snapshot, copied, is_recurrent

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone

__all__ = ["StaticKVCache"]


class _Cursor:
    """Index of the next position to write: a count on the host and a buffer on the device."""

    def __init__(self, device: torch.device) -> None:
        self.length = 0
        self.column = torch.zeros(1, dtype=torch.long, device=device)


class StaticKVCache(KVCache):
    """Keys and values in buffers of C columns; sliding windows are applied by the mask.

    All that a step of one position reads and writes has a fixed address: `x_B1D`, `h_BD`,
    `position_B`, `column`, `mask_BC` and the layers' buffers. `length` is the host's count.

    Its parts do not refer back to it, and it does not refer to the backbone whose workspace holds
    it: in a reference cycle, buffers would outlive their last use until the garbage collector runs.
    """

    def __init__(self, backbone: LoadedBackbone, rows: int, capacity: int) -> None:
        """Allocate the buffers of a step; layers allocate theirs with the first positions.

        Args:
            backbone: Backbone whose `static_reason()` is None.
            rows: Number of rows B.
            capacity: Maximum number of positions C.
        """
        self.rows, self.capacity = rows, capacity
        device, width = backbone.device, backbone.planned.info.hidden_size
        self._cursor = _Cursor(device)
        self.position_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.mask_BC = torch.zeros(rows, capacity, dtype=torch.long, device=device)
        self.x_B1D = torch.zeros(rows, 1, width, dtype=backbone.dtype, device=device)
        self.h_BD = torch.zeros(rows, width, dtype=backbone.dtype, device=device)
        self.cache = Cache(layers=[self._layer(kind) for kind in backbone.layer_kinds()])
        self.replays: dict[Any, Any] = {}
        """Captured steps over these buffers, managed by the executor."""

    def _layer(self, kind: str) -> Any:
        return LinearAttentionLayer() if kind == LINEAR else _Fixed(self.capacity, self._cursor)

    @property
    def length(self) -> int:
        """Number of positions read so far, L."""
        return self._cursor.length

    @property
    def column(self) -> Tensor:
        """Index of the next position to write, (1,)."""
        return self._cursor.column

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes."""
        held = self.buffers()
        layers: list[Any] = self.cache.layers
        for layer in layers:
            if not is_recurrent(layer) and layer.is_initialized:
                held += [layer.keys, layer.values]
        return sum(tensor.nbytes for tensor in held)

    def reset(self) -> None:
        """Reset all buffers to zero, since masked values must still be finite."""
        self._cursor.length = 0
        for layer in self.cache.layers:
            layer.reset()
        self.mask_BC.zero_()
        self.h_BD.zero_()

    def advance(self, count: int) -> None:
        """Advance the host's count by the positions that a step has written."""
        self._cursor.length += count

    def place(self, mask_BL: Tensor, position_B: Tensor) -> None:
        """Update the buffers of a step after a prompt: its mask, and each row's next position."""
        self.column.fill_(self.length)
        self.position_B.copy_(position_B)
        self.mask_BC[:, : mask_BL.shape[1]] = mask_BL

    def buffers(self) -> list[Tensor]:
        """Buffers that a one-position step changes, except keys and values, which it rewrites."""
        found = [self.column, self.position_B, self.mask_BC, self.x_B1D, self.h_BD]
        layers: list[Any] = self.cache.layers
        for layer in layers:
            if is_recurrent(layer):
                found += [*layer.conv_states.values(), *layer.recurrent_states.values()]
        return found

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

    def can_merge(self) -> bool:
        """True: all layers are known."""
        return True

    def gather(self, parts: Sequence[RowSelection], length: int) -> None:
        """Copy rows of other states, in order, aligned at their last column.

        Rows not filled by a part repeat the last one.

        Args:
            parts: Rows of static states.
            length: Number of columns to keep, L. Shorter parts are padded on the left, which must
                be masked; longer parts lose columns on the left, which must have been masked.
        """
        indices = [torch.tensor(part.rows, device=self.column.device) for part in parts]
        for i, layer in enumerate(self.cache.layers):
            taken = [
                _rows_of(part.state.length, part.state.cache.layers[i], index, length)
                for part, index in zip(parts, indices, strict=True)
            ]
            fields = {name: _stacked([t[name] for t in taken], self.rows) for name in taken[0]}
            _write(layer, fields, length)
        self._cursor.length = length


class _Fixed(StaticLayer):
    """Writes one position at the cursor's `column`, several positions at its `length`."""

    def __init__(self, capacity: int, cursor: _Cursor) -> None:
        super().__init__(max_cache_len=capacity)
        self.cursor = cursor

    def get_seq_length(self) -> int:
        """The count on the host; transformers' own count is on the device."""
        return self.cursor.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of columns that `update` returns for several positions."""
        return self.cursor.length + query_length, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Write and return keys and values: of all columns (one position), or so far (several)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
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


def _rows_of(seen: int, layer: Any, index: Tensor, length: int) -> dict[str, Any]:
    """Rows of a layer that has read `seen` columns, shifted so that they end at `length`."""
    if is_recurrent(layer):
        return {
            "conv": {k: v.index_select(0, index) for k, v in layer.conv_states.items()},
            "recurrent": {k: v.index_select(0, index) for k, v in layer.recurrent_states.items()},
        }
    more = length - seen  # negative: columns on the left are dropped
    return {
        name: torch.nn.functional.pad(
            getattr(layer, name)[:, :, :seen].index_select(0, index), (0, 0, more, 0)
        )
        for name in ("keys", "values")
    }


def _stacked(values: Sequence[Any], rows: int) -> Any:
    """Concatenate rows, repeating the last one until there are enough."""
    if isinstance(values[0], dict):
        return {key: _stacked([value[key] for value in values], rows) for key in values[0]}
    joined = torch.cat(list(values))
    missing = rows - joined.shape[0]
    return (
        torch.cat([joined, joined[-1:].expand(missing, *joined.shape[1:])]) if missing else joined
    )


def _write(layer: Any, fields: dict[str, Any], length: int) -> None:
    """Copy contents into a layer's buffers, which keep their addresses."""
    if not is_recurrent(layer):
        if not layer.is_initialized:
            layer.lazy_initialization(fields["keys"], fields["values"])
        layer.keys[:, :, :length] = fields["keys"]
        layer.values[:, :, :length] = fields["values"]
        return
    for key, conv in fields["conv"].items():
        if not layer.is_conv_states_initialized[key]:
            layer.lazy_initialization(conv_states=conv, state_idx=key)
        layer.conv_states[key].copy_(conv)
        layer.has_previous_state[key] = True
    for key, recurrent in fields["recurrent"].items():
        if not layer.is_recurrent_states_initialized[key]:
            layer.lazy_initialization(recurrent_states=recurrent, state_idx=key)
        layer.recurrent_states[key].copy_(recurrent)

"""Cache layers with spare room, so that a step copies only its own columns.

transformers' dynamic layers concatenate old and new columns at each step, which copies all of
them. Autograd needs that, so it is also done here when gradients are on.

Shapes: `B` batch, `H` heads, `T` new positions, `L` columns kept, `D` width of a head.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

__all__ = ["Growing", "GrowingWindow", "CacheBuffer", "grown_columns", "with_room"]

CHUNK = 256
"""Number of columns added at once when there are more than expected."""


def grown_columns(expected: int, columns: int) -> int:
    """Columns of a buffer made for `expected` ones, to which single ones were added."""
    return expected + max(0, ceil((columns - expected) / (CHUNK + 1))) * (CHUNK + 1)


class CacheBuffer:
    """Columns in a larger buffer. Columns that have been written are never overwritten."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._end = 0
        self._seen: Tensor | None = None
        """The most recently returned columns."""

    def append(self, old_BHLD: Tensor, new_BHTD: Tensor, expected: int, chunk: int) -> Tensor:
        """Old and new columns as one tensor, `(B, H, L + T, D)`.

        Args:
            old_BHLD: Columns kept so far; copied unless they end at the last column written here.
            new_BHTD: New columns to append.
            expected: Minimum number of columns of a new buffer.
            chunk: Number of spare columns if there are more columns than expected.
        """
        new, kept = new_BHTD.shape[-2], old_BHLD.shape[-2] if old_BHLD.dim() == 4 else 0
        buffer, end = self._buffer, self._end
        if buffer is None or self._seen is not old_BHLD or end + new > buffer.shape[-2]:
            rows, heads, _, width = new_BHTD.shape
            least = kept + new
            capacity = expected if least <= expected else least + (chunk if kept else 0)
            buffer = new_BHTD.new_empty(rows, heads, capacity, width)
            if kept:
                buffer[:, :, :kept] = old_BHLD
            end = kept
        buffer.narrow(2, end, new).copy_(new_BHTD)
        self._buffer, self._end = buffer, end + new
        return buffer.narrow(2, end - kept, kept + new)

    def hand_out(self, kept: Tensor) -> Tensor:
        """Record the layer's columns, so that the next ones are written after them."""
        self._seen = kept
        return kept


class Growing(DynamicLayer):
    """All columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms = CacheBuffer(), CacheBuffer()
        self.expected, self.chunk = 0, CHUNK

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns and return all keys and values."""
        if torch.is_grad_enabled():
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        (keys, values), sizes = self.rooms, (self.expected, self.chunk)
        self.keys = keys.hand_out(keys.append(self.keys, key_states, *sizes))
        self.values = values.hand_out(values.append(self.values, value_states, *sizes))
        return self.keys, self.values

    def keep_last(self, columns: int) -> None:
        """Forget all but the last columns."""
        _keep_last(self, columns)


class GrowingWindow(DynamicSlidingWindowLayer):
    """The last columns of a window."""

    def __init__(self, sliding_window: int) -> None:
        super().__init__(sliding_window)
        self.rooms = CacheBuffer(), CacheBuffer()
        self.expected, self.chunk = 0, CHUNK

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns and return the keys and values visible to the new positions."""
        if torch.is_grad_enabled() or self.record_past:
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        self.cumulative_length += key_states.shape[-2]
        keys, values = self.rooms
        window = self.sliding_window
        spare = min(self.chunk, window // 8)
        sizes = min(self.expected, window + spare), spare
        seen = (
            keys.append(self.keys, key_states, *sizes),
            values.append(self.values, value_states, *sizes),
        )
        last = slice(max(0, seen[0].shape[-2] - self.sliding_window + 1), None)
        self.keys = keys.hand_out(seen[0][:, :, last])
        self.values = values.hand_out(seen[1][:, :, last])
        return seen

    def keep_last(self, columns: int) -> None:
        """Forget all but the last columns; the window may hold fewer."""
        self.cumulative_length = columns
        _keep_last(self, columns)


def _keep_last(layer: Growing | GrowingWindow, columns: int) -> None:
    assert layer.keys is not None
    assert layer.values is not None
    # Copied, so that the buffer with the forgotten columns is freed.
    if layer.keys.shape[-2] > columns:
        layer.keys = layer.keys[:, :, -columns:].clone()
        layer.values = layer.values[:, :, -columns:].clone()
        layer.rooms = CacheBuffer(), CacheBuffer()


def with_room(layer: Any) -> Any:
    """Replace a dynamic layer of transformers with a growing one; other layers are unchanged."""
    if type(layer) is DynamicLayer:
        return Growing()
    if type(layer) is DynamicSlidingWindowLayer:
        return GrowingWindow(layer.sliding_window)
    return layer

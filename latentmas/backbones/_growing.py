"""Cache layers that leave room for what is to come, so that a step copies its own columns alone.

transformers' dynamic layers put old and new columns together at each step, which copies all of
them. That is what autograd needs, and is done here too when gradients are on.

Shapes: `B` batch, `H` heads, `T` new positions, `L` columns kept, `D` width of a head.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

__all__ = ["Growing", "GrowingWindow", "Room", "grown_columns", "with_room"]

CHUNK = 256
"""Columns that are added at once when more come than were expected."""


def grown_columns(expected: int, columns: int) -> int:
    """Columns of a buffer made for `expected` ones, to which single ones were added."""
    return expected + max(0, ceil((columns - expected) / (CHUNK + 1))) * (CHUNK + 1)


class Room:
    """Columns in a buffer that is larger than they are. What is written is never written again."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._end = 0
        self._seen: Tensor | None = None
        """The last columns handed out."""

    def append(self, old_BHLD: Tensor, new_BHTD: Tensor, expected: int, chunk: int) -> Tensor:
        """Old and new columns as one tensor, `(B, H, L + T, D)`.

        Args:
            old_BHLD: what is kept; copied unless its last column is the last one written here.
            new_BHTD: what comes after it.
            expected: columns that a new buffer has at least.
            chunk: columns that it has to spare where more than expected are there.
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
        buffer[:, :, end : end + new] = new_BHTD
        self._buffer, self._end = buffer, end + new
        return buffer[:, :, end - kept : end + new]

    def hand_out(self, kept: Tensor) -> Tensor:
        """Remember what the layer keeps, so that the next columns go after it."""
        self._seen = kept
        return kept


class Growing(DynamicLayer):
    """All columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms = Room(), Room()
        self.expected, self.chunk = 0, CHUNK

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns; all keys and values."""
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


class GrowingWindow(DynamicSlidingWindowLayer):
    """The last columns of a window."""

    def __init__(self, sliding_window: int) -> None:
        super().__init__(sliding_window)
        self.rooms = Room(), Room()
        self.expected, self.chunk = 0, CHUNK

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns; keys and values that the new positions may see."""
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


def with_room(layer: Any) -> Any:
    """A growing layer in the place of transformers' own; others as they are."""
    if type(layer) is DynamicLayer:
        return Growing()
    if type(layer) is DynamicSlidingWindowLayer:
        return GrowingWindow(layer.sliding_window)
    return layer

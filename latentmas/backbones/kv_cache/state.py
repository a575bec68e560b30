"""A model's state after the positions it has read; it grows with every step.

Shapes: `B` batch, `T` new positions, `L` positions so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import LinearAttentionCacheLayerMixin, LinearAttentionLayer

from latentmas.backbones.kv_cache.growing import CHUNK, CacheBuffer, Growing, GrowingWindow
from latentmas.backbones.kv_cache.masks import Masks

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone

__all__ = ["RowSelection", "KVCache", "copied", "is_recurrent"]

Snapshot = list[dict[str, Any]]
"""The fields of each layer."""


ROOM = ("rooms", "expected", "chunk")
"""Fields about a layer's buffers, left out of snapshots: a snapshot with them would keep the
buffers of another turn alive and reserve room as that turn did."""

ON_NEW: ContextVar[Callable[[KVCache], None] | None] = ContextVar("on_new", default=None)
"""Called with each new dynamic state; training tracks how much memory they hold."""


class RowSelection(NamedTuple):
    """Rows of a state, used to assemble another one."""

    state: KVCache
    rows: Sequence[int]
    """May repeat."""


class KVCache:
    """A dynamic state: exact, differentiable, and as large as the positions it has read."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        self.backbone = backbone
        self.cache = backbone.family.new_cache(backbone.model)
        if (told := ON_NEW.get()) is not None:
            told(self)

    @property
    def length(self) -> int:
        """Number of positions read so far, L."""
        return int(self.cache.get_seq_length())

    def masks(self, masks: Masks, mask_BL: Tensor, new: int, padded: bool) -> Any:
        """The decoder's attention mask for T new positions."""
        return masks.growing(mask_BL, new, padded=padded)

    def reserve(self, expected: int, chunk: int = CHUNK) -> None:
        """Set the expected total number of positions, so that memory is allocated once.

        Args:
            expected: Final value of L.
            chunk: Number of columns added at once when more are needed.
        """
        for layer in self.cache.layers:
            if isinstance(layer, (Growing, GrowingWindow)):
                layer.expected, layer.chunk = expected, chunk

    def snapshot(self) -> Snapshot:
        """A copy of the current contents, for `restore`."""
        return [_fields(layer) for layer in self.cache.layers]

    def restore(self, snapshot: Snapshot) -> None:
        """Restore a snapshot of this state or of another state of the same model.

        The snapshot can be reused.
        """
        for layer, fields in zip(self.cache.layers, snapshot, strict=True):
            _put(layer, copied(fields) if is_recurrent(layer) else fields)

    def keys_and_values(self) -> list[Tensor]:
        """Keys and values of each layer, alternating, `(B, H, L, D)`."""
        layers: list[Any] = self.cache.layers
        return [kept for layer in layers for kept in (layer.keys, layer.values)]

    def put_keys_and_values(self, kept: Sequence[Tensor]) -> None:
        """Replace what `keys_and_values` returns, by any number of rows and columns."""
        layers: list[Any] = self.cache.layers
        for layer, keys, values in zip(layers, kept[::2], kept[1::2], strict=True):
            layer.keys, layer.values = keys, values

    def keep_last(self, columns: int) -> None:
        """Forget all but the last columns; those before must be masked in every row."""
        for layer in self.cache.layers:
            if isinstance(layer, (Growing, GrowingWindow)):
                layer.keep_last(columns)

    def can_merge(self) -> bool:
        """Whether `assemble` supports all layers of this model's states."""
        known = (Growing, GrowingWindow, LinearAttentionLayer)
        return all(type(layer) in known for layer in self.cache.layers)

    def assemble(self, parts: Sequence[RowSelection]) -> KVCache:
        """A new state with the rows of all parts, in order.

        Parts are aligned at their last column; shorter ones are padded on the left, which must be
        masked.
        """
        made = KVCache(self.backbone)
        for i, layer in enumerate(made.cache.layers):
            _put(layer, _together([(p.state.cache.layers[i], p.rows) for p in parts]))
        return made


def is_recurrent(layer: Any) -> bool:
    """Whether a cache layer writes to its tensors in place, as linear attention does."""
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def _put(layer: Any, fields: Mapping[str, Any]) -> None:
    """Replace a layer's contents, except for its bound methods."""
    own = {k: v for k, v in layer.__dict__.items() if isinstance(v, MethodType)}
    room = {k: v for k, v in layer.__dict__.items() if k in ROOM}
    layer.__dict__.clear()
    layer.__dict__.update({**room, **fields, **own})
    if isinstance(layer, (Growing, GrowingWindow)):
        layer.rooms = (
            CacheBuffer(),
            CacheBuffer(),
        )  # columns shared with other states must not be appended to


def _fields(layer: Any) -> dict[str, Any]:
    """A copy of a layer's contents, which may be overwritten or be views of a larger buffer."""
    fields = {k: v for k, v in layer.__dict__.items() if not isinstance(v, MethodType)}
    return {name: copied(value) for name, value in fields.items() if name not in ROOM}


def copied(value: Any) -> Any:
    """A value with its tensors cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def _together(layers: Sequence[tuple[Any, Sequence[int]]]) -> dict[str, Any]:
    """Contents of a layer from rows of others; non-tensors are taken from the longest."""
    longest = max((layer for layer, _ in layers), key=_columns)
    fields = {k: v for k, v in longest.__dict__.items() if not isinstance(v, MethodType)}
    for name, value in fields.items():
        values = [(layer.__dict__[name], rows) for layer, rows in layers]
        if name in ("keys", "values") and isinstance(value, Tensor):
            fields[name] = _joined(values, value.shape[-2])
        else:
            fields[name] = _combined(values)
    return fields


def _combined(values: Sequence[tuple[Any, Sequence[int]]]) -> Any:
    """Rows of tensors whose first dimension is the batch, also inside dictionaries."""
    first = values[0][0]
    if isinstance(first, Tensor) and first.dim() > 0:
        return _joined(values)
    if isinstance(first, dict):
        return {key: _combined([(value[key], rows) for value, rows in values]) for key in first}
    return max(value for value, _ in values) if type(first) is int else first


def _columns(layer: Any) -> int:
    keys = getattr(layer, "keys", None)
    return int(keys.shape[-2]) if isinstance(keys, Tensor) and keys.dim() == 4 else 0


def _joined(parts: Sequence[tuple[Tensor, Sequence[int]]], columns: int | None = None) -> Tensor:
    """Rows of several tensors; with `columns`, left-padded in the second-to-last dimension."""
    rows = []
    for value, wanted in parts:
        chosen = value.index_select(0, torch.tensor(wanted, device=value.device))
        more = 0 if columns is None else columns - chosen.shape[-2]
        rows.append(F.pad(chosen, (0, 0, more, 0)) if more else chosen)
    return torch.cat(rows)

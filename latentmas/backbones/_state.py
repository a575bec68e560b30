"""What a model remembers of the positions it has seen: a state that grows with every step.

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

from latentmas.backbones._growing import CHUNK, Growing, GrowingWindow, Room
from latentmas.backbones._masks import Masks

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone

__all__ = ["Part", "State", "copied", "is_recurrent"]

Snapshot = list[dict[str, Any]]
"""The fields of each layer."""


ROOM = ("rooms", "expected", "chunk")
"""Fields of a layer about its buffers: a snapshot that had them would hold buffers of another turn,
and make room as that one did."""

ON_NEW: ContextVar[Callable[[State], None] | None] = ContextVar("on_new", default=None)
"""Told of each new dynamic state; training keeps account of what they hold."""


class Part(NamedTuple):
    """Rows of a state, for another one that is put together."""

    state: State
    rows: Sequence[int]
    """May repeat."""


class State:
    """A dynamic state: exact, differentiable, and as large as what it has seen."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        self.backbone = backbone
        self.cache = backbone.family.new_cache(backbone.model)
        if (told := ON_NEW.get()) is not None:
            told(self)

    @property
    def length(self) -> int:
        """Positions seen so far, L."""
        return int(self.cache.get_seq_length())

    def masks(self, masks: Masks, mask_BL: Tensor, new: int, padded: bool) -> Any:
        """What the decoder takes as attention mask for T new positions."""
        return masks.growing(mask_BL, new, padded=padded)

    def reserve(self, expected: int, chunk: int = CHUNK) -> None:
        """Say how many positions are to come in all, so that memory is taken once.

        Args:
            expected: L in the end.
            chunk: columns that are added at once when there are more.
        """
        for layer in self.cache.layers:
            if isinstance(layer, (Growing, GrowingWindow)):
                layer.expected, layer.chunk = expected, chunk

    def snapshot(self) -> Snapshot:
        """Copies of what is remembered now, to be given to `restore`."""
        return [_fields(layer) for layer in self.cache.layers]

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a snapshot, of this state or of another of the same model.

        The snapshot may be used again.
        """
        for layer, fields in zip(self.cache.layers, snapshot, strict=True):
            _put(layer, copied(fields) if is_recurrent(layer) else fields)

    def joins(self) -> bool:
        """Whether `assemble` knows all layers of this model's states."""
        known = (Growing, GrowingWindow, LinearAttentionLayer)
        return all(type(layer) in known for layer in self.cache.layers)

    def assemble(self, parts: Sequence[Part]) -> State:
        """A new state of the parts' rows, one part after another.

        Parts end in the same column; shorter ones get columns on the left, which must be masked.
        """
        made = State(self.backbone)
        for i, layer in enumerate(made.cache.layers):
            _put(layer, _together([(p.state.cache.layers[i], p.rows) for p in parts]))
        return made


def is_recurrent(layer: Any) -> bool:
    """Whether a cache layer writes into its tensors, as linear attention does."""
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def _put(layer: Any, fields: Mapping[str, Any]) -> None:
    """Replace a layer's content; its bound methods stay its own."""
    own = {k: v for k, v in layer.__dict__.items() if isinstance(v, MethodType)}
    room = {k: v for k, v in layer.__dict__.items() if k in ROOM}
    layer.__dict__.clear()
    layer.__dict__.update({**room, **fields, **own})
    if isinstance(layer, (Growing, GrowingWindow)):
        layer.rooms = Room(), Room()  # others' columns are read, never written after


def _fields(layer: Any) -> dict[str, Any]:
    """A layer's content, copied: recurrent layers write into it, others keep it in a larger one."""
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
    """Content of a layer made of rows of others; what is no tensor is the longest's."""
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
    """Rows of what has a batch as its first dimension, inside dictionaries too."""
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
    """Rows of several tensors; with `columns`, padded on the left of the last but one dimension."""
    rows = []
    for value, wanted in parts:
        chosen = value.index_select(0, torch.tensor(wanted, device=value.device))
        more = 0 if columns is None else columns - chosen.shape[-2]
        rows.append(F.pad(chosen, (0, 0, more, 0)) if more else chosen)
    return torch.cat(rows)

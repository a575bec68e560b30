"""What autograd keeps for the backward pass: counted, and keys and values kept once.

A growing cache makes new tensors at each latent step, and attention saves each of them: K steps
keep about K²/2 columns of which K differ. Here each step's own columns are kept, and put together
again when gradients come. Exact: the same numbers reach the same backward functions.

Shapes: `B` batch, `H` heads, `T` new positions, `L` positions so far, `D` width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from latentmas.backbones import ON_NEW, Growing, GrowingWindow, KVCache

__all__ = ["keys_kept_once", "saved_bytes"]

_COUNT: ContextVar[Callable[[Tensor], None] | None] = ContextVar("count", default=None)


class _Columns:
    """All keys, or all values, that one layer has been given, in pieces."""

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []
        self.length = 0
        self._whole: Tensor | None = None

    def add(self, new_BHTD: Tensor) -> None:
        own = new_BHTD.detach()
        larger = own.untyped_storage().nbytes() > own.nbytes
        self.pieces.append(own.clone() if larger else own)  # a view would keep all of its tensor
        self.length += new_BHTD.shape[-2]
        self._whole = None

    def between(self, begin: int, end: int) -> Tensor:
        """Columns from `begin` to before `end`; put together once."""
        if self._whole is None:
            self._whole = torch.cat(self.pieces, dim=-2)
            self.pieces = [self._whole]
        return self._whole[:, :, begin:end]


class _Part:
    """Stands for saved keys or values."""

    def __init__(self, columns: _Columns, begin: int, end: int) -> None:
        self.columns, self.begin, self.end = columns, begin, end

    def tensor(self) -> Tensor:
        return self.columns.between(self.begin, self.end)


class SavedKV:
    """Knows which tensors are a layer's keys or values at this moment."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[tuple[int, ...], _Part]] = {}
        """Address → shape and what stands for it; a layer's last tensors only."""

    def watch(self, state: KVCache) -> None:
        """Learn of what the layers of a new state hand to attention."""
        if not torch.is_grad_enabled():
            return
        for layer in state.cache.layers:
            if isinstance(layer, (Growing, GrowingWindow)):
                self._watch(layer)

    def _watch(self, layer: Any) -> None:
        plain, columns, last = layer.update, (_Columns(), _Columns()), list[int]()

        def update(_: Any, keys: Tensor, values: Tensor, *args: Any, **options: Any) -> Any:
            for address in last:
                self.parts.pop(address, None)
            last.clear()
            handed = plain(keys, values, *args, **options)
            for own, new, whole in zip(columns, (keys, values), handed, strict=True):
                earlier = whole.shape[-2] - new.shape[-2] - own.length
                if earlier > 0:  # the layer was given them with a snapshot
                    own.add(whole[:, :, :earlier].clone())
                own.add(new)
                part = _Part(own, own.length - whole.shape[-2], own.length)
                self.parts[whole.data_ptr()] = tuple(whole.shape), part
                last.append(whole.data_ptr())
            return handed

        layer.update = MethodType(update, layer)

    def keep(self, tensor: Tensor) -> Any:
        """What is saved in a tensor's place."""
        shape, part = self.parts.get(tensor.data_ptr(), ((), None))
        count = _COUNT.get()
        if part is None or tuple(tensor.shape) != shape:
            if count is not None:
                count(tensor)
            return tensor
        if count is not None:
            for piece in part.columns.pieces:
                count(piece)
        return part


@contextmanager
def keys_kept_once() -> Iterator[None]:
    """Within it, states made with gradients on save each key and value once."""
    ledger = SavedKV()
    token = ON_NEW.set(ledger.watch)
    try:
        with saved_tensors_hooks(ledger.keep, _given_back):
            yield
    finally:
        ON_NEW.reset(token)


def _given_back(saved: Any) -> Tensor:
    tensor: Tensor = saved.tensor() if isinstance(saved, _Part) else saved
    return tensor


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Counts what autograd keeps while the block runs; storages that are shared count once."""
    seen: set[int] = set()
    total = [0]
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter) and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
            alive.append(tensor)
        return tensor

    def count(tensor: Tensor) -> None:
        keep(tensor)

    token = _COUNT.set(count)
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            yield total
    finally:
        _COUNT.reset(token)

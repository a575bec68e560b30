"""Buffers of a backbone, as sessions take them and leave them."""

from __future__ import annotations

from threading import RLock
from typing import NamedTuple

import torch

from latentmas.backbones import LoadedBackbone, StaticBuffers
from latentmas.engine.buffers import HOST_LIMIT, KEPT_SHARE, BufferPool, Shape, Use, shape_for
from latentmas.engine.cuda_graphs import POOL, count_graphs

__all__ = ["KeptMemory", "kept_memory", "lease", "pool_of", "provide", "release"]

LOCK = RLock()
"""Runs may go side by side in threads."""


def pool_of(backbone: LoadedBackbone) -> BufferPool[StaticBuffers]:
    """The buffers of a backbone; they go when its weights move."""
    with LOCK:
        if POOL not in backbone.workspace:
            backbone.workspace[POOL] = BufferPool[StaticBuffers](_limit(backbone.device))
        found: BufferPool[StaticBuffers] = backbone.workspace[POOL]
        return found


class KeptMemory(NamedTuple):
    """What a backbone keeps for later turns."""

    buffers: int
    """Number of buffers."""
    nbytes: int
    """Bytes of these buffers."""
    graphs: int
    """Number of graphs that run over them."""


def kept_memory(backbone: LoadedBackbone) -> KeptMemory:
    """What a backbone keeps for later turns."""
    pool: BufferPool[StaticBuffers] | None = backbone.workspace.get(POOL)
    if pool is None:
        return KeptMemory(0, 0, 0)
    return KeptMemory(len(pool.held), pool.nbytes, count_graphs(backbone))


def lease(backbone: LoadedBackbone, use: Use, rows: int, columns: int) -> StaticBuffers:
    """Buffers of enough rows and columns, without any positions.

    They are kept ones where some are free, else new ones. New ones are kept where there is room.

    Args:
        backbone: Backbone that is fed.
        use: What they are for.
        rows: Number of rows.
        columns: Number of positions.
    """
    pool = pool_of(backbone)
    with LOCK:
        found = pool.take(use, rows, columns)
        if found is None:
            found = _made(backbone, pool, shape_for(rows, columns), use)
    found.reset()
    return found


def provide(backbone: LoadedBackbone, use: Use, rows: int, columns: int) -> StaticBuffers:
    """Buffers of this size at least, which are kept whatever the limit is.

    Free ones of the same use that are smaller go, with their graphs.

    Args:
        backbone: Backbone that will be fed.
        use: What they are for.
        rows: Number of rows.
        columns: Number of positions.
    """

    def made(shape: Shape) -> StaticBuffers:
        new = StaticBuffers(backbone, *shape)
        new.kept = True
        return new

    with LOCK:
        found = pool_of(backbone).provide(use, rows, columns, made)
    found.reset()
    return found


def release(backbone: LoadedBackbone, buffers: StaticBuffers) -> None:
    """Leave buffers, with their graphs, to later turns; they go if they are not kept."""
    with LOCK:
        pool_of(backbone).leave(buffers)


def _made(
    backbone: LoadedBackbone, pool: BufferPool[StaticBuffers], shape: Shape, use: Use
) -> StaticBuffers:
    """New buffers; where a device's memory runs low, free ones go first."""
    size = StaticBuffers.size(backbone, *shape)
    if backbone.device.type == "cuda":
        left, whole = torch.cuda.mem_get_info(backbone.device)
        if left - size < whole // 10:
            pool.clear()
            torch.cuda.empty_cache()
    made = StaticBuffers(backbone, *shape)
    made.kept = pool.has_room(size)
    if made.kept:
        pool.keep(use, made)
    return made


def _limit(device: torch.device) -> int:
    if device.type != "cuda":
        return HOST_LIMIT
    return int(torch.cuda.get_device_properties(device).total_memory // KEPT_SHARE)

"""One step over fixed buffers: run as it is, or captured once and replayed as a CUDA graph.

Shapes: `B` rows, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from latentmas.backbones import LoadedBackbone, StaticKVCache
from latentmas.engine.inner import GroupedInner, Inner
from latentmas.redact import get_logger

__all__ = ["Replay", "capture", "one_step", "replay_of"]

log = get_logger("latentmas.runtime")
WARM_UPS = 2
"""Runs before a capture: libraries choose and load their kernels in them."""

Step = Callable[[LoadedBackbone, StaticKVCache, "Inner | None", int], None]


def one_step(
    backbone: LoadedBackbone, state: StaticKVCache, inner: Inner | None, rows: int
) -> None:
    """A step of one position, for all rows of a state; nothing is read back to the host.

    Reads `x_B1D`, or with an inner link makes it of `h_BD`; writes `h_BD`; moves on `column`,
    `position_B` and `mask_BC`.
    """
    if inner is not None:
        x_BD = inner.apply_to(state.h_BD[:rows])
        state.x_B1D[:rows].copy_(x_BD[:, None])
    state.mask_BC.index_fill_(1, state.column, 1)
    h_B1D = backbone.step(state.x_B1D, state.position_B[:, None], state.mask_BC, state)
    state.h_BD.copy_(h_B1D[:, -1])
    state.position_B.add_(1)
    state.column.add_(1)


class Replay:
    """A step over the buffers of one state, which keeps it.

    State and backbone are given to each call: holding them would close a reference cycle, and the
    state's buffers would stay until the garbage collector runs.
    """

    def __init__(
        self, inner: Inner | None, rows: int, *, captures: bool, compile_step: bool
    ) -> None:
        self._inner, self._rows = inner, rows
        self._step: Step = _compiled(one_step) if compile_step else one_step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captures = captures

    def __call__(self, backbone: LoadedBackbone, state: StaticKVCache) -> None:
        """Do the step; the caller counts it."""
        if self._captures:
            self._captures = False
            self._graph = self._captured(backbone, state)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step(backbone, state, self._inner, self._rows)

    def _captured(
        self, backbone: LoadedBackbone, state: StaticKVCache
    ) -> torch.cuda.CUDAGraph | None:
        """The captured step; None where that fails, which is not tried again for such buffers."""
        failed: set[Any] = backbone.workspace.setdefault("not captured", set())
        shape = state.rows, state.capacity, self._inner is not None
        if shape in failed:
            return None
        try:
            return capture(
                lambda: self._step(backbone, state, self._inner, self._rows),
                device=backbone.device,
                changed=state.buffers(),
            )
        except RuntimeError as error:
            if not failed:
                log.warning(
                    "backbone %r: a step could not be captured as a CUDA graph and runs without "
                    "one, which is slower: %s; further failures are not reported",
                    backbone.planned.spec.source,
                    str(error),
                )
            failed.add(shape)
            return None


def capture(
    step: Callable[[], None], *, device: torch.device, changed: Sequence[Tensor]
) -> torch.cuda.CUDAGraph:
    """Capture a step; afterwards all state is as before, on failure too.

    Args:
        step: Function to capture.
        device: Device on which it runs.
        changed: Tensors that the step changes, apart from columns that it always overwrites.

    Raises:
        RuntimeError: The step cannot be captured.
    """
    kept = [buffer.clone() for buffer in changed]

    def restore() -> None:
        for buffer, value in zip(changed, kept, strict=True):
            buffer.copy_(value)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        try:
            try:
                with torch.cuda.stream(side):
                    for _ in range(WARM_UPS):
                        step()
                        restore()  # so all write one column: it may be the last that there is
            finally:
                current.wait_stream(side)
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                step()
        finally:
            torch.cuda.set_stream(current)  # torch stays on the side stream when a capture fails
            restore()
    return graph


def _compiled(step: Step) -> Step:
    """The step through `torch.compile`, with a cache of its own.

    `torch.compile` counts compilations by code object and gives up after eight. Each state and
    inner link needs one, so each gets a copy of the code.
    """
    assert isinstance(step, FunctionType)
    fresh = FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
    compiled: Step = torch.compile(fresh, dynamic=False)
    return compiled


def replay_of(
    state: StaticKVCache, inner: Inner | None, rows: int, *, captures: bool, compile_step: bool
) -> Replay:
    """The state's replay for an inner link, made once."""
    key = _key(inner, rows), captures, compile_step
    known: dict[Any, Replay] = state.replays
    if key not in known:
        known[key] = Replay(inner, rows, captures=captures, compile_step=compile_step)
    return known[key]


def _key(inner: Inner | None, rows: int) -> Any:
    """What a captured step depends on: which weights, where they are, over how many rows.

    A replay holds its links, so that an id stands for the same link as long as the key is there.
    """
    if inner is None:
        return None
    links = inner.links if isinstance(inner, GroupedInner) else [inner]
    sizes = tuple(inner.sizes) if isinstance(inner, GroupedInner) else (rows,)
    weights = [
        p.data_ptr() for link in links if isinstance(link, nn.Module) for p in link.parameters()
    ]
    return tuple(map(id, links)), tuple(weights), sizes

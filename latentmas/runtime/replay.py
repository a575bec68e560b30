"""One step over fixed buffers: run as it is, or captured once and replayed as a CUDA graph.

Shapes: `B` rows, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from latentmas.backbones import StaticState
from latentmas.redact import get_logger
from latentmas.runtime.inner import GroupedInner, Inner

__all__ = ["Replay", "replay_of"]

log = get_logger("latentmas.runtime")
WARM_UPS = 2
"""Runs before a capture: libraries choose and load their kernels in them."""


class Replay:
    """A step of one position, for all rows of a state.

    Reads `x_B1D`, or with an inner link makes it of `h_BD`; writes `h_BD`; moves on `column`,
    `position_B` and `mask_BC`. Nothing is read back to the host.
    """

    def __init__(
        self,
        state: StaticState,
        inner: Inner | None,
        rows: int,
        *,
        capture: bool,
        compile_step: bool,
    ) -> None:
        self._state, self._inner, self._rows = state, inner, rows
        self._body: Callable[[], None] = self._run
        if compile_step:
            self._body = torch.compile(self._run, dynamic=False)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._capture = capture and state.backbone.device.type == "cuda"

    def __call__(self) -> None:
        """Do the step; the caller counts it."""
        if self._capture:
            self._capture = False
            self._graph = self._captured()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._body()

    def _run(self) -> None:
        state = self._state
        if self._inner is not None:
            x_BD = self._inner.apply_to(state.h_BD[: self._rows])
            state.x_B1D[: self._rows].copy_(x_BD[:, None])
        state.mask_BC.index_fill_(1, state.column, 1)
        h_B1D = state.backbone.step(state.x_B1D, state.position_B[:, None], state.mask_BC, state)
        state.h_BD.copy_(h_B1D[:, -1])
        state.position_B.add_(1)
        state.column.add_(1)

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """Capture the step; what the warm-ups changed is put back. None where that fails."""
        state = self._state
        kept = [buffer.clone() for buffer in state.buffers()]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(state.backbone.device):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(WARM_UPS):
                        self._body()
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._body()
        except RuntimeError as error:
            log.warning("a step could not be captured as a CUDA graph and runs as it is: %s", error)
            return None
        finally:
            for buffer, value in zip(state.buffers(), kept, strict=True):
                buffer.copy_(value)
        return graph


def replay_of(
    state: StaticState, inner: Inner | None, rows: int, *, capture: bool, compile_step: bool
) -> Replay:
    """The state's replay for an inner link, made once."""
    key = _key(inner, rows), capture, compile_step
    known: dict[Any, Replay] = state.replays
    if key not in known:
        known[key] = Replay(state, inner, rows, capture=capture, compile_step=compile_step)
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

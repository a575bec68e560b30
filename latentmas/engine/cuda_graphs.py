"""One step over fixed buffers: run as it is, or captured once and replayed as a CUDA graph.

Shapes: `B` rows, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from latentmas.backbones import LoadedBackbone, StaticBuffers, StaticKVCache
from latentmas.engine.buffers import BufferPool, row_bucket
from latentmas.engine.choosers import Chooser
from latentmas.engine.inner import GroupedInner, Inner, links_of
from latentmas.engine.spread import Spread
from latentmas.redact import get_logger

__all__ = ["MOST_GRAPHS", "POOL", "Replay"]
__all__ += ["capture", "count_graphs", "one_step", "replay_of", "token_step"]

log = get_logger("latentmas.runtime")
WARM_UPS = 2
"""Runs before a capture: libraries choose and load their kernels in them."""
MOST_GRAPHS = 256
"""Maximum number of graphs of a backbone; other steps run without one. None is ever captured a
second time to make room."""
POOL = "buffers"
"""Key of a backbone's pool of buffers in its workspace."""

Step = Callable[[LoadedBackbone, StaticKVCache, Any], None]
"""A step; its last argument is an inner link or none, or a chooser."""


def one_step(backbone: LoadedBackbone, state: StaticKVCache, inner: Inner | None) -> None:
    """A step of one position, for all rows of a state; nothing is read back to the host.

    Reads `x_B1D`, or with an inner link makes it of `h_BD`; writes `h_BD`; moves on `column`,
    `position_B` and `mask_BC`.
    """
    if inner is not None:
        state.x_B1D.copy_(inner.apply_to(state.h_BD)[:, None])
    state.mask_BC.index_fill_(1, state.column, 1)
    h_B1D = backbone.step(state.x_B1D, state.position_B[:, None], state.mask_BC, state)
    state.h_BD.copy_(h_B1D[:, -1])
    state.position_B.add_(1)
    state.column.add_(1)


def token_step(backbone: LoadedBackbone, state: StaticKVCache, chooser: Chooser) -> None:
    """A step that reads the tokens in `token_B`, and writes the chosen next ones there."""
    state.x_B1D.copy_(backbone.embed(state.token_B)[:, None])
    one_step(backbone, state, None)
    state.token_B.copy_(chooser.choose(backbone.logits(state.h_BD), state.choice_BS))


class Replay:
    """A step over the rows and columns of one state.

    State, backbone and links are given to each call: holding them would close a reference cycle,
    since links may know their backbones, and buffers would stay until the garbage collector runs.
    """

    def __init__(
        self,
        inner: Inner | None,
        spread: Spread | None,
        chooser: Chooser | None,
        *,
        captures: bool,
        compile_step: bool,
    ) -> None:
        step: Step = one_step if chooser is None else token_step
        self._kind = inner is not None, chooser and chooser.key
        self.spread = spread
        """Rows of several agents; None: links are applied as they are."""
        self._chooser = chooser
        self._links = [ref(link) for link in links_of(inner)]
        self._step: Step = _compiled(step) if compile_step else step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captures = captures

    def serves(self, inner: Inner | None) -> bool:
        """Whether it was made for these links, and not for others that had their addresses."""
        links = links_of(inner)
        return all(own() is link for own, link in zip(self._links, links, strict=True))

    @property
    def captured(self) -> bool:
        """Whether it has a graph."""
        return self._graph is not None

    def __call__(self, backbone: LoadedBackbone, state: StaticKVCache, inner: Inner | None) -> None:
        """Do the step; the caller counts it."""
        self.prepare(backbone, state, inner)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step(backbone, state, self._last(inner))

    def prepare(self, backbone: LoadedBackbone, state: StaticKVCache, inner: Inner | None) -> None:
        """Capture the step, unless that has been done or cannot be."""
        if self._captures:
            self._captures = False
            self._graph = self._captured(backbone, state, inner)

    def _last(self, inner: Inner | None) -> Inner | Chooser | None:
        """The step's last argument."""
        if self._chooser is not None:
            return self._chooser
        return inner if self.spread is None else self.spread.over(inner)

    def _captured(
        self, backbone: LoadedBackbone, state: StaticKVCache, inner: Inner | None
    ) -> torch.cuda.CUDAGraph | None:
        """The captured step; None where that fails, which is not tried again for such buffers."""
        failed: set[Any] = backbone.workspace.setdefault("not captured", set())
        shape = state.rows, state.capacity, self._kind
        if shape in failed or count_graphs(backbone) >= MOST_GRAPHS:
            return None
        last = self._last(inner)
        try:
            return capture(
                lambda: self._step(backbone, state, last),
                device=backbone.device,
                changed=state.buffers(),
                pool=_memory_of(backbone),
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


def count_graphs(backbone: LoadedBackbone) -> int:
    """Number of graphs that a backbone's buffers have."""
    pool: BufferPool[StaticBuffers] | None = backbone.workspace.get(POOL)
    held = [] if pool is None else pool.held
    return sum(replay.captured for buffers in held for replay in buffers.replays.values())


def _memory_of(backbone: LoadedBackbone) -> Any:
    """The memory pool that all graphs of a backbone share for what they hold during a step.

    Results are in buffers outside of it, so that graphs may be replayed in any order, one at a
    time.
    """
    key = "memory of graphs"
    if key not in backbone.workspace or not count_graphs(backbone):
        # torch refuses a pool whose last graph has gone.
        with torch.cuda.device(backbone.device):
            backbone.workspace[key] = torch.cuda.graph_pool_handle()
    return backbone.workspace[key]


def capture(
    step: Callable[[], None], *, device: torch.device, changed: Sequence[Tensor], pool: Any = None
) -> torch.cuda.CUDAGraph:
    """Capture a step; afterwards all state is as before, on failure too.

    Args:
        step: Function to capture.
        device: Device on which it runs.
        changed: Tensors that the step changes, apart from columns that it always overwrites.
        pool: Memory pool shared with other graphs; None: one of its own.

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
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
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
    buffers: StaticBuffers,
    state: StaticKVCache,
    inner: Inner | None,
    *,
    captures: bool,
    compile_step: bool,
    chooser: Chooser | None = None,
) -> Replay:
    """The replay of a state for an inner link, made once.

    Args:
        buffers: Buffers of the state, which keep the replay.
        state: State whose rows and columns it covers.
        inner: Inner links of the rollout; None: inputs are given.
        captures: Whether the step is captured.
        compile_step: Whether it is compiled.
        chooser: How it chooses the tokens that follow those that it reads; None: it reads inputs,
            and chooses none.
    """
    together = inner if isinstance(inner, GroupedInner) else None
    sizes = None if together is None else tuple(together.sizes)
    if together is not None and (captures or compile_step):
        sizes = (row_bucket(max(together.sizes)),)
    shape = state.rows, state.capacity, sizes
    key = _weights(inner), chooser and chooser.key, shape, captures, compile_step
    known: dict[Any, Replay] = buffers.replays
    if key not in known or not known[key].serves(inner):
        spread = None
        if together is not None and (captures or compile_step):
            spread = Spread(together, state.rows, state.column.device)
        known[key] = Replay(inner, spread, chooser, captures=captures, compile_step=compile_step)
    if together is not None and (placed := known[key].spread) is not None:
        placed.arrange(together.sizes)
    return known[key]


def _weights(inner: Inner | None) -> Any:
    """Which links a captured step applies, and where their weights are."""
    links = links_of(inner)
    modules = [link for link in links if isinstance(link, nn.Module)]
    weights = [weight.data_ptr() for module in modules for weight in module.parameters()]
    return tuple(map(id, links)), tuple(weights)

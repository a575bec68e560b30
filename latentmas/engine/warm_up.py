"""Buffers and graphs made before a run, for all that it can need within given limits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from latentmas.backbones import LoadedBackbone, StaticBuffers
from latentmas.engine.buffers import SMALLEST, Use, bucket, row_bucket, shape_for
from latentmas.engine.choosers import Chooser
from latentmas.engine.cuda_graphs import MOST_GRAPHS, count_graphs, replay_of
from latentmas.engine.inner import GroupedInner, Inner
from latentmas.engine.lease import pool_of, provide, release
from latentmas.links import Link

__all__ = ["ExpectedSteps", "WarmUp", "capture_steps"]


@dataclass(frozen=True)
class WarmUp:
    """What `System.warm_up` has made."""

    executor: str
    """Name of the executor for which it was made."""
    captures: int = 0
    """Number of steps that were captured as CUDA graphs."""
    graphs: int = 0
    """Number of graphs that there are now."""
    left_out: int = 0
    """Number of steps that run without a graph: their capture failed, or there are too many."""
    nbytes: int = 0
    """Bytes of the buffers that are kept."""
    seconds: float = 0.0
    """Time that it took."""
    reason: str | None = None
    """Reason why nothing was to be done."""

    def __str__(self) -> str:
        if self.reason is not None:
            return f"nothing to warm up: {self.reason}"
        lost = f", {self.left_out} without a graph" if self.left_out else ""
        return (
            f"warmed up {self.executor}: {self.captures} captures in {self.seconds:.1f} s, "
            f"{self.graphs} graphs{lost}, buffers of {self.nbytes / 2**20:.1f} MiB"
        )


@dataclass(frozen=True)
class ExpectedSteps:
    """Single positions that turns on a backbone will feed, at most."""

    backbone: LoadedBackbone
    use: Use
    batch: int
    """Rows of one agent."""
    columns: int
    """Positions of a row when its turn ends."""
    links: Sequence[Link] = ()
    """Inner links of the agents that roll together; none if text is written."""
    place: int = 0
    """Which of several buffers for one use, as texts may be begun while others are written."""
    captured: bool = True
    """Whether steps follow the prompt; else it is read, and no more."""
    chooser: Chooser | None = None
    """How the tokens of a text are chosen within a step; None: after it."""

    @property
    def rows(self) -> int:
        """Rows of all agents."""
        return self.batch * max(1, len(self.links))

    def shapes(
        self, buffers: StaticBuffers
    ) -> Iterator[tuple[Inner | None, int, int, Chooser | None]]:
        """Each step that may have a graph, the largest first.

        Inner link, rows, columns, and how it chooses tokens, if it does.
        """
        sizes = {bucket(n) for n in range(SMALLEST, self.columns + 1)}
        columns = sorted({min(max(SMALLEST, n), buffers.capacity) for n in sizes}, reverse=True)
        known = set[tuple[int, int]]()
        for batch in range(self.batch, 0, -1):
            each, rows = row_bucket(batch), row_bucket(batch * max(1, len(self.links)))
            rows = min(rows, buffers.rows)
            if (each, rows) in known:
                continue
            known.add((each, rows))
            for width in columns:
                yield self._inner(batch), rows, width, None
                if not self.links and self.chooser is not None:
                    yield None, rows, width, self.chooser

    def _inner(self, batch: int) -> Inner | None:
        if len(self.links) > 1:
            return GroupedInner(self.links, [batch] * len(self.links))
        return self.links[0] if self.links else None


@torch.no_grad()
def capture_steps(
    name: str, expected: Sequence[ExpectedSteps], *, compile_step: bool = False
) -> WarmUp:
    """Make the buffers for some steps, and capture them.

    Afterwards a backbone's buffers are bounded by what it has now.

    Args:
        name: Name of the executor.
        expected: Steps of all turns.
        compile_step: Whether the steps are compiled.
    """
    began = time.perf_counter()
    backbones = list({id(own.backbone): own.backbone for own in expected}.values())
    captures = left_out = 0
    for backbone in backbones:
        before = count_graphs(backbone)
        own = [steps for steps in expected if steps.backbone is backbone]
        held = _provided(backbone, own)
        try:
            for steps in own:
                if steps.captured and all(link.capturable for link in steps.links):
                    left_out += _capture(steps, held[steps.use, steps.place], compile_step)
        finally:
            for buffers in held.values():
                release(backbone, buffers)
        captures += count_graphs(backbone) - before
        pool_of(backbone).limit = pool_of(backbone).nbytes
    return WarmUp(
        name,
        captures=captures,
        graphs=sum(count_graphs(backbone) for backbone in backbones),
        left_out=left_out,
        nbytes=sum(pool_of(backbone).nbytes for backbone in backbones),
        seconds=time.perf_counter() - began,
    )


def _provided(
    backbone: LoadedBackbone, expected: Sequence[ExpectedSteps]
) -> dict[tuple[Use, int], StaticBuffers]:
    """Buffers for each use, as large as the largest of its turns needs."""
    sizes: dict[tuple[Use, int], tuple[int, int]] = {}
    for steps in sorted(expected, key=lambda one: one.place):
        rows, columns = sizes.get((steps.use, steps.place), (0, 0))
        rows = max(rows, steps.rows)
        sizes[steps.use, steps.place] = rows, max(columns, steps.columns)
    return {key: provide(backbone, key[0], *shape_for(*size)) for key, size in sizes.items()}


def _capture(expected: ExpectedSteps, buffers: StaticBuffers, compile_step: bool) -> int:
    """Capture the steps over some buffers; returns how many have no graph."""
    backbone, left_out = expected.backbone, 0
    for inner, rows, columns, chooser in expected.shapes(buffers):
        state = buffers.state(rows, columns)
        replay = replay_of(
            buffers, state, inner, captures=True, compile_step=compile_step, chooser=chooser
        )
        if count_graphs(backbone) < MOST_GRAPHS or replay.captured:
            buffers.cursor.column.zero_()
            replay.prepare(backbone, state, inner)
        left_out += not replay.captured
    return left_out

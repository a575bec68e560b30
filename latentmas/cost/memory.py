"""What a run holds in memory while it walks over the steps of a plan.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentmas.backbones import grown_columns
from latentmas.cost.counting import Fed
from latentmas.cost.roofline import FLOAT32, Model, weights_of
from latentmas.engine import BufferPool, Use, enlarged, row_bucket, shape_for

__all__ = ["Buffers", "Memory"]

INDEX = 8
"""Bytes of a token's id, its mask, its position."""


@dataclass(eq=False)
class _Held:
    """Buffers of some size."""

    rows: int
    capacity: int
    nbytes: int


class Buffers:
    """All buffers of fixed size of a team, as turns take them and leave them."""

    def __init__(self, limit: int, *, captures: bool) -> None:
        """No buffers yet.

        Args:
            limit: Maximum number of bytes of a backbone's that are kept.
            captures: Whether steps are captured, which are of few sizes.
        """
        self._limit, self._captures = limit, captures
        self._pools: dict[str, BufferPool[_Held]] = {}

    def turn(self, model: Model, fed: Fed) -> int:
        """Bytes of all buffers at a turn's worst moment."""
        pool = self._pools.setdefault(fed.backbone.key, BufferPool(self._limit))
        use: Use = "text" if fed.tokens else "turn"
        end = fed.positions + fed.calls
        held, more = self._take(pool, use, model, fed.rows, fed.positions + fed.reserved)
        worst = self._bytes() + more
        while end > held.capacity:
            columns = enlarged(held.capacity, 1)
            larger, added = self._take(pool, use, model, fed.rows, columns)
            worst = max(worst, self._bytes() + more + added)
            pool.leave(held)
            held, more = larger, added
        pool.leave(held)
        return worst

    def step_rows(self, rows: int) -> int:
        """Rows of a step after the prompt."""
        return row_bucket(rows) if self._captures else rows

    @staticmethod
    def _take(
        pool: BufferPool[_Held], use: Use, model: Model, rows: int, columns: int
    ) -> tuple[_Held, int]:
        """Buffers, and their bytes if they are not kept."""
        found = pool.take(use, rows, columns)
        if found is not None:
            return found, 0
        shape = shape_for(rows, columns)
        made = _Held(*shape, model.whole(*shape) + shape[0] * shape[1] * INDEX)
        if not pool.has_room(made.nbytes):
            return made, made.nbytes
        pool.keep(use, made)
        return made, 0

    def _bytes(self) -> int:
        return sum(pool.nbytes for pool in self._pools.values())


@dataclass
class Memory:
    """Bytes by what they are for."""

    models: Mapping[str, Model | None]
    """By backbone key; None where its counts are not known."""
    links: int
    buffers: Buffers | None = None
    """Buffers of an executor that keeps states in fixed sizes; None if states grow."""
    alone: bool = False
    """Whether the backbones take turns on the device, one at a time."""
    put_by: dict[tuple[str, ...], int] = field(default_factory=dict)
    """States after the beginnings of agents' prompts, kept for later turns."""

    def peak(self, model: Model, agents: tuple[str, ...], fed: Fed) -> int | None:
        """Bytes at a turn's worst moment: in a call that reads the prompt, or in the last one.

        Args:
            model: Model that is fed.
            agents: Agents of the turn.
            fed: Positions that it is fed.
        """
        if fed.kept:
            self.put_by[agents] = self._kept(model, fed)
        models = [model for model in self.models.values() if model is not None]
        if len(models) < len(self.models):
            return None
        position = model.info.hidden_size * model.size
        copies = 1 if len(agents) == 1 else 2  # each prompt by itself, and all as one batch
        there = [model] if self.alone else models
        standing = weights_of(there) + self.links
        standing += fed.values + sum(self.put_by.values())
        standing += fed.rows * fed.positions * (copies * position + 2 * INDEX)
        moments = [*self._reading(model, fed), self._end(model, fed, position)]
        if len(fed.reads) > 1:  # while the beginning is first read, it is not yet put by
            moments[0] -= self.put_by[agents]
        fixed = 0 if self.buffers is None else self.buffers.turn(model, fed)
        return standing + fixed + max(moments)

    def _kept(self, model: Model, fed: Fed) -> int:
        """Bytes of a state that is put by."""
        if self.buffers is not None:
            return model.whole(fed.rows, fed.kept)
        return model.kept(fed.rows, 1, fed.kept - 1)

    def _reading(self, model: Model, fed: Fed) -> list[int]:
        """State and layers of the calls that read the prompt."""
        if self.buffers is None:
            rows, taken = fed.rows, model.kept(fed.rows, 1, fed.positions + fed.reserved - 1)
            return [
                max(taken, model.kept(rows, *call)) + model.working(rows, *call)
                for call in fed.reads
            ]
        return [model.working(fed.rows, *call) for call in fed.reads]

    def _end(self, model: Model, fed: Fed, position: int) -> int:
        """State, layers and results of the last call."""
        rows, length = fed.rows, fed.positions + fed.calls
        if self.buffers is None:
            room = fed.positions + fed.reserved
            grown = grown_columns(room, length)
            state = model.kept(rows, 1, grown - 1)
            if grown > room:  # a layer's keys are copied when they grow
                state += state // model.info.num_layers
            last = (1, length - 1) if fed.calls else fed.reads[-1]
            layers = model.working(rows, *last)
        else:
            state, layers = 0, model.working(self.buffers.step_rows(rows), 1, length)
        states = rows * (fed.reads[-1][0] + 2 * fed.calls) * position  # held, and their stack
        scores = rows * model.info.vocab_size * (model.size + 2 * FLOAT32) if fed.tokens else 0
        return state + layers + states + scores

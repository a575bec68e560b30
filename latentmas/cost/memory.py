"""What a run holds in memory while it walks over the steps of a plan.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentmas.backbones import grown_columns
from latentmas.cost.counting import Fed
from latentmas.cost.roofline import FLOAT32, Model, weights_of
from latentmas.engine import Shape, bucket, enlarged, shape_for, surplus

__all__ = ["Buffers", "Memory"]

INDEX = 8
"""Bytes of a token's id, its mask, its position."""


class Buffers:
    """All buffers of fixed size of a team, as turns take them and leave them."""

    def __init__(self, spare: int = 0) -> None:
        """None yet; `spare` as in `surplus`."""
        self._spare = spare
        self._free: dict[str, tuple[Model, list[Shape]]] = {}

    def turn(self, model: Model, fed: Fed) -> int:
        """Bytes of all buffers at a turn's worst moment."""
        rows, end = fed.rows, fed.positions + fed.calls
        _, free = self._free.setdefault(fed.backbone.key, (model, []))
        held = self._take(free, rows, fed.positions + fed.reserved)
        worst = self._bytes() + _size(model, held)
        while end > held[1]:
            larger = self._take(free, rows, enlarged(held[1], 1))
            worst = max(worst, self._bytes() + _size(model, held) + _size(model, larger))
            self._leave(model, free, held)
            held = larger
        self._leave(model, free, held)
        return worst

    @staticmethod
    def _take(free: list[Shape], rows: int, columns: int) -> Shape:
        shape = shape_for(rows, columns)
        if shape in free:
            free.remove(shape)
        return shape

    def _leave(self, model: Model, free: list[Shape], shape: Shape) -> None:
        free.append(shape)
        del free[: surplus([_size(model, kept) for kept in free], self._spare)]

    def _bytes(self) -> int:
        return sum(_size(model, shape) for model, free in self._free.values() for shape in free)


def _size(model: Model, shape: Shape) -> int:
    rows, columns = shape
    return model.whole(rows, columns) + rows * columns * INDEX


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
        rows = bucket(fed.rows)  # the last row is repeated until the buffers are full
        size = rows * model.info.hidden_size * model.size if rows > fed.rows else 0
        return [model.working(rows, *call) + call[0] * size for call in fed.reads]

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
            state, layers = 0, model.working(bucket(rows), 1, length)
        states = rows * (fed.reads[-1][0] + 2 * fed.calls) * position  # held, and their stack
        scores = rows * model.info.vocab_size * (model.size + 2 * FLOAT32) if fed.tokens else 0
        return state + layers + states + scores

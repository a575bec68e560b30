"""Memory of a run while it walks over the steps of a plan.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentmas.plan.buffers import Buffers, bucket
from latentmas.plan.cost import FLOAT32, Model, Run

__all__ = ["Memory"]

INDEX = 8
"""Bytes of a token's id, mask and position."""


@dataclass
class Memory:
    """Bytes by purpose."""

    models: Mapping[str, Model | None]
    """Costs by backbone key; None if its counts are unknown."""
    links: int
    buffers: Buffers | None = None
    """Buffers of an executor with states of fixed size. None: states grow."""
    alone: bool = False
    """Whether only one backbone at a time is on the device."""
    values: dict[str, int] = field(default_factory=dict)
    """States and messages that later steps read."""
    put_by: dict[str, int] = field(default_factory=dict)
    """States after prompt prefixes, kept for later turns."""

    def kept(self, model: Model, rows: int, positions: int) -> int:
        """Bytes of a state that is kept."""
        if self.buffers is not None:
            return model.whole(rows, positions)
        return model.kept(rows, 1, positions - 1)

    def peak(self, key: str, agent: str, run: Run) -> int | None:
        """Peak bytes of a turn: in a call that reads the prompt, or in the last call.

        Args:
            key: Key of the backbone.
            agent: First agent of the turn.
            run: The turn.
        """
        models = [model for model in self.models.values() if model is not None]
        if len(models) < len(self.models):
            return None
        position = run.model.info.hidden_size * run.model.size
        copies = 1 if run.agents == 1 else 2  # each prompt separately, and all as one batch
        there = [run.model] if self.alone else models
        standing = sum(model.weights for model in there) + self.links
        standing += sum(self.values.values()) + sum(self.put_by.values())
        standing += run.rows * run.positions * (copies * position + 2 * INDEX)
        moments = [*self._reading(run), self._end(run, position)]
        if len(run.prompt) > 1:  # the prefix is not kept yet while it is first read
            moments[0] -= self.put_by.get(agent, 0)
        fixed = 0 if self.buffers is None else self.buffers.turn(key, run)
        return standing + fixed + max(moments)

    def _reading(self, run: Run) -> list[int]:
        """Bytes of state and layers in the calls that read the prompt."""
        model = run.model
        if self.buffers is None:
            rows, taken = run.rows, model.kept(run.rows, 1, run.room - 1)
            return [
                max(taken, model.kept(rows, *call)) + model.working(rows, *call)
                for call in run.prompt
            ]
        rows = bucket(run.rows)  # the last row is repeated until the buffers are full
        size = rows * model.info.hidden_size * model.size if rows > run.rows else 0
        return [model.working(rows, *call) + call[0] * size for call in run.prompt]

    def _end(self, run: Run, position: int) -> int:
        """Bytes of state, layers and results in the last call."""
        model, rows = run.model, run.rows
        if self.buffers is None:
            state = model.kept(rows, 1, run.grown - 1)
            if run.grown > run.room:  # a layer's keys are copied when they grow
                state += state // model.info.num_layers
            layers = model.working(rows, *run.last)
        else:
            state, layers = 0, model.working(bucket(rows), 1, run.positions + run.calls)
        states = (
            rows * (run.prompt[-1][0] + 2 * run.calls) * position
        )  # the single results and their stack
        scores = rows * model.info.vocab_size * (model.size + 2 * FLOAT32) if run.decodes else 0
        return state + layers + states + scores

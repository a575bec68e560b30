"""Rollouts that training cannot change, and what links make of them, computed once for each row.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentmas.engine import Executor
from latentmas.plan import Decode, Plan, Rollout, Transfer
from latentmas.runtime import Interpreter, Sampling, System
from latentmas.training.data import TrainingRows

__all__ = ["ConstantStates", "constant_rollouts"]

BLOCK = 32
"""Rows that are computed together."""
BYTES = 4
"""Maximum number of bytes of a number in a state, in the types that models are trained with."""


class ConstantStates:
    """States of the rollouts that nothing trainable precedes, row by row, on the CPU.

    Of links that prepare their messages (`Link.prepares`), what they prepare is kept as well.

    Rows are computed in fixed blocks of the data, whatever the batches are: a training that resumes
    in a later epoch gets the same bits. Where no row is read twice, each batch is computed as it
    comes, and the last one alone is kept.
    """

    def __init__(
        self,
        system: System,
        executor: Executor,
        rows: TrainingRows,
        keep_bytes: int,
        *,
        once: bool = False,
    ) -> None:
        """Prepare; nothing runs.

        Args:
            system: whose agents roll.
            executor: runs the rollouts.
            rows: Training rows.
            keep_bytes: Maximum number of bytes of states; the first rows that fit are kept, others
                never.
            once: Whether no row is read twice.
        """
        self._system, self._executor, self._rows = system, executor, rows
        self._keep_bytes, self._once = keep_bytes, once
        self._places = {number: place for place, (number, _) in enumerate(rows)}
        self._kept: dict[tuple[str, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def states(self, plan: Plan, step: Rollout, numbers: Sequence[int]) -> Tensor | None:
        """h_BKD of a batch; None where the rollout is not constant, or a row is not kept.

        Args:
            plan: Plan that is walked.
            step: Step of the plan.
            numbers: Numbers of the batch's rows in the data.
        """
        constant = constant_rollouts(self._system, plan)
        if step.output not in constant:
            return None
        last = self._keep_bytes // max(1, self._row_bytes(plan, constant))
        if last and self._once:
            last = len(self._places)
        places = [self._places.get(number, last) for number in numbers]
        if max(places) >= last:
            return None
        keys = [(step.output, step.latent_steps, number) for number in numbers]
        missing = [place for key, place in zip(keys, places, strict=True) if key not in self._kept]
        if missing and self._once:
            self._kept.clear()
            self._fill(plan, places)
        else:
            for block in sorted({place // BLOCK for place in missing}):
                end = min((block + 1) * BLOCK, len(self._rows))
                self._fill(plan, range(block * BLOCK, end))
        return self._stacked(keys, step.agent)

    def message(self, plan: Plan, step: Transfer, numbers: Sequence[int]) -> Tensor | None:
        """What a link sends, message_BKD, where all but its weights' own part is kept; else None.

        Args:
            plan: Plan that is walked.
            step: Step of the plan; the states that it reads have been requested before.
            numbers: Numbers of the batch's rows in the data.
        """
        if step not in _prepared(self._system, plan, constant_rollouts(self._system, plan)):
            return None
        count = next(one.latent_steps for one in _rollouts(plan) if one.output == step.source)
        keys = [(step.output, count, number) for number in numbers]
        if not self._kept.keys() >= set(keys):
            return None
        return self._system.link(step.outer).finish(self._stacked(keys, step.agent))

    def _stacked(self, keys: Sequence[tuple[str, int, int]], agent: str) -> Tensor:
        kept_BKD = torch.stack([self._kept[key] for key in keys])
        return kept_BKD.to(self._system.backbone_of(agent).device)

    @torch.no_grad()
    def _fill(self, plan: Plan, places: Sequence[int]) -> None:
        """Walk the constant part of a plan over some rows."""
        varying = _varying(self._system, plan)
        steps = [
            step
            for step in plan.steps
            if step.output not in varying and not (isinstance(step, Decode) and step.final)
        ]
        interpreter = Interpreter(
            team=self._system,
            plan=plan.model_copy(update={"steps": tuple(steps)}),
            executor=self._executor,
            sampling=Sampling(),
            keep=lambda step: isinstance(step, Rollout),
        )
        rows = [self._rows[place] for place in places]
        walk = interpreter.walk([row for _, row in rows])
        counts = dict[str, int]()
        for step in _rollouts(plan):
            states = walk.values.get(step.output)
            if isinstance(states, Tensor):
                counts[step.output] = step.latent_steps
                self._keep(step.output, step.latent_steps, rows, states)
        for made in _prepared(self._system, plan, set(counts)):
            states, outer = walk.values[made.source], self._system.link(made.outer)
            assert isinstance(states, Tensor)
            if "states" not in outer.needs:
                states = self._system.link(made.inner).apply_to(states)
            self._keep(made.output, counts[made.source], rows, outer.prepare(states))

    def _keep(self, name: str, count: int, rows: Sequence[Any], values_BKD: Tensor) -> None:
        for (number, _), own_KD in zip(rows, values_BKD.cpu(), strict=True):
            self._kept[name, count, number] = own_KD.clone()

    def _row_bytes(self, plan: Plan, constant: set[str]) -> int:
        """Bytes of one row's states, and of what is prepared of them, at most."""
        counts = {step.output: step.latent_steps for step in _rollouts(plan)}
        read = [(step.output, step.agent) for step in _rollouts(plan) if step.output in constant]
        made = [(step.source, step.target) for step in _prepared(self._system, plan, constant)]
        return sum(
            counts[name]
            * self._system.backbone_of(agent).planned.info.hidden_size
            * max(BYTES, self._system.backbone_of(agent).dtype.itemsize)
            for name, agent in read + made
        )


def _rollouts(plan: Plan) -> list[Rollout]:
    return [step for step in plan.steps if isinstance(step, Rollout)]


def _prepared(system: System, plan: Plan, constant: set[str]) -> list[Transfer]:
    """Transfers of constant states whose links prepare them, by way of links that do not learn."""
    return [
        step
        for step in plan.steps
        if isinstance(step, Transfer)
        and step.source in constant
        and system.link(step.outer).prepares
        and ("states" in system.link(step.outer).needs or not _learns(system, step.inner))
    ]


def constant_rollouts(system: System, plan: Plan) -> set[str]:
    """Outputs of rollouts that no trainable link or adapter precedes."""
    varying = _varying(system, plan)
    return {step.output for step in plan.steps if isinstance(step, Rollout)} - varying


def _varying(system: System, plan: Plan) -> set[str]:
    """Outputs of steps that a trainable link or adapter is part of, or precedes."""
    learns = {id for id in system.link_ids() if _learns(system, id)}
    agents = {a.name for a in plan.graph.agents if system.backbone_of(a.name).learns}
    varying: set[str] = set()
    for step in plan.steps:
        reads = isinstance(step, Rollout | Decode) and step.agent in agents
        if reads or varying & set(step.reads) or learns & set(step.links):
            varying.add(step.output)
    return varying


def _learns(system: System, id: str) -> bool:
    return any(weight.requires_grad for weight in system.link(id).parameters())

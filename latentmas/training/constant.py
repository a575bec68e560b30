"""Rollouts that training cannot change, computed once for each row.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentmas.plan import Decode, Plan, Rollout
from latentmas.runtime import Interpreter, Sampling, System
from latentmas.runtime.executors._base import Executor
from latentmas.training.data import TrainingRows

__all__ = ["ConstantStates", "constant_rollouts"]

BLOCK = 32
"""Rows that are computed together."""
BYTES = 4
"""Of a number in a state, at most in the types that models are trained with."""


class ConstantStates:
    """States of the rollouts that no trainable link precedes, row by row, on the CPU.

    Rows are computed in fixed blocks of the data, whatever the batches are: a training that resumes
    in a later epoch gets the same bits.
    """

    def __init__(
        self, system: System, executor: Executor, rows: TrainingRows, keep_bytes: int
    ) -> None:
        """Prepare; nothing runs.

        Args:
            system: whose agents roll.
            executor: runs the rollouts.
            rows: of the training.
            keep_bytes: most bytes of states; the first rows that fit are kept, the others never.
        """
        self._system, self._executor, self._rows = system, executor, rows
        self._keep_bytes = keep_bytes
        self._places = {number: place for place, (number, _) in enumerate(rows)}
        self._kept: dict[tuple[str, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def states(self, plan: Plan, step: Rollout, numbers: Sequence[int]) -> Tensor | None:
        """h_BKD of a batch; None where the rollout is not constant, or a row is not kept.

        Args:
            plan: being walked.
            step: of the plan.
            numbers: of the batch's rows in the data.
        """
        constant = constant_rollouts(self._system, plan)
        if step.output not in constant:
            return None
        last = self._keep_bytes // max(1, self._row_bytes(plan, constant))
        places = [self._places.get(number, last) for number in numbers]
        if max(places) >= last:
            return None
        keys = [(step.output, step.latent_steps, number) for number in numbers]
        missing = {
            place // BLOCK for key, place in zip(keys, places, strict=True) if key not in self._kept
        }
        for block in sorted(missing):
            self._fill(plan, block)
        states_BKD = torch.stack([self._kept[key] for key in keys])
        return states_BKD.to(self._system.backbone_of(step.agent).device)

    @torch.no_grad()
    def _fill(self, plan: Plan, block: int) -> None:
        """Walk the constant part of a plan over a block of rows."""
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
        rows = self._rows[block * BLOCK : (block + 1) * BLOCK]
        walk = interpreter.walk([row for _, row in rows])
        for step in steps:
            if isinstance(step, Rollout):
                states = walk.values[step.output]
                assert isinstance(states, Tensor)
                for (number, _), own_KD in zip(rows, states.cpu(), strict=True):
                    self._kept[step.output, step.latent_steps, number] = own_KD.clone()

    def _row_bytes(self, plan: Plan, constant: set[str]) -> int:
        """Bytes of one row's states, at most."""
        return sum(
            step.latent_steps
            * self._system.backbone_of(step.agent).planned.info.hidden_size
            * max(BYTES, self._system.backbone_of(step.agent).dtype.itemsize)
            for step in plan.steps
            if isinstance(step, Rollout) and step.output in constant
        )


def constant_rollouts(system: System, plan: Plan) -> set[str]:
    """Outputs of rollouts that no trainable link precedes."""
    varying = _varying(system, plan)
    return {step.output for step in plan.steps if isinstance(step, Rollout)} - varying


def _varying(system: System, plan: Plan) -> set[str]:
    """Outputs of steps that a trainable link is part of, or precedes."""
    learns = {id for id in system.link_ids() if _learns(system, id)}
    varying: set[str] = set()
    for step in plan.steps:
        sources = [step.source] if step.op == "transfer" else list(step.inputs.values())
        links = [step.inner, step.outer] if step.op == "transfer" else []
        links += [step.inner] if isinstance(step, Rollout) else []
        if varying & set(sources) or learns & set(links):
            varying.add(step.output)
    return varying


def _learns(system: System, id: str) -> bool:
    return any(weight.requires_grad for weight in system.link(id).parameters())

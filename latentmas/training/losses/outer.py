"""The outer loop's loss: cross-entropy of the answer, through every round.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentmas.engine import Executor, answer_ids, beginnings_kept, executors
from latentmas.plan import Decode, Plan, Rollout, Transfer, Value
from latentmas.redact import get_logger
from latentmas.runtime import Interpreter, Sampling, StepInput, System
from latentmas.training.data import Row, TrainingRows
from latentmas.training.losses.teacher_forcing import cross_entropy, teacher_force
from latentmas.training.memory.constant import ConstantStates
from latentmas.training.memory.recompute import CheckpointedExecutor
from latentmas.training.memory.saved_tensors import keys_kept_once

__all__ = ["OuterLoss", "default_weights"]

log = get_logger(__name__)

RELEASED_ROWS = 80
"""Maximum number of message rows in the published procedure."""


class OuterLoss(nn.Module):
    """Cross-entropy of the output agent's answer, through every round.

    `on_policy`: messages come from real rollouts, as at run time; no gold text reaches any agent
    before the loss is taken. `released`: the published procedure, where a message is made of an
    agent's states on its own gold text, so that the gold answer feeds back into later rounds.

    Gradients are exact: autograd runs through cache, rollouts and links.
    """

    def __init__(
        self,
        system: System,
        plan: Plan,
        *,
        answer_field: str = "answer",
        round_weights: Sequence[float] | None = None,
        executor: str = "cached",
        checkpoint: bool = False,
        recipe: str = "on_policy",
        targets: Mapping[str, str] | None = None,
        rows: TrainingRows | None = None,
        keep_bytes: int = 2**32,
        once: bool = False,
    ) -> None:
        """Prepare.

        Args:
            system: System whose links are trained.
            plan: Plan of the system, with the rounds to train.
            answer_field: Field of a row with the answer.
            round_weights: R weights of the answer's loss after each round; None: the last alone.
            executor: how rollouts run.
            checkpoint: compute activations again in the backward pass.
            recipe: `"on_policy"` or `"released"`.
            targets: for `"released"`, the field with each agent's own text.
            rows: Training rows, for each of which states of rollouts that nothing trainable
                precedes are computed once. None keeps nothing.
            keep_bytes: Maximum number of bytes of such states.
            once: Whether no row is read twice, so that none of them are kept for later.
        """
        super().__init__()
        self.links, self.adapters = system.links, system.adapters
        self._system = (system,)
        self.answer_field, self.recipe = answer_field, recipe
        self.targets = dict(targets or {})
        plain: Executor = executors.get(executor)()
        self._executor = CheckpointedExecutor(plain) if checkpoint else plain
        self._checkpoint = checkpoint
        self.constant = (
            ConstantStates(system, plain, rows, keep_bytes, once=once) if rows is not None else None
        )
        self.watch: Callable[[Value, Any], Any] | None = None
        """Sees each message on its way: telemetry."""
        self.round_losses: dict[int, float] | None = None
        """When a dict: filled with the answer's mean cross-entropy after each round."""
        self.deduplicate = True
        """Whether keys and values of a cache are saved once for all its steps."""
        self.set_plan(plan, round_weights)

    def set_plan(self, plan: Plan, round_weights: Sequence[float] | None = None) -> None:
        """Train at another depth from now on."""
        self.plan = plan
        self.round_weights = list(round_weights or default_weights(plan))
        _check_weights(plan, self.round_weights)

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Answer tokens of some rows."""
        backbone = self._system[0].backbone_of(self.plan.output)
        return sum(len(answer_ids(backbone, str(row[self.answer_field]))) for row in rows)

    def forward(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            rows: B mappings with the graph's inputs and the answer.
            numbers: Numbers of the rows in the data, by which features are kept across epochs.
            num_items_in_batch: answer tokens that the loss is divided by; None: those of the rows.

        Returns:
            `loss`, a scalar: mean over answer tokens, weighted mean over rounds.
        """
        saving = keys_kept_once() if self.deduplicate and not self._checkpoint else nullcontext()
        with saving, beginnings_kept():
            return self._loss(rows, numbers, num_items_in_batch)

    def _loss(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None,
        num_items_in_batch: Tensor | int | None,
    ) -> dict[str, Tensor]:
        if self.recipe == "released":
            sums = [self._walk([row], None) for row in rows]
            total = torch.stack(sums).sum()
        else:
            total = self._walk(rows, numbers)
        reached = any(link.differentiable for link in self.plan.links)
        if reached and torch.is_grad_enabled() and not total.requires_grad:
            log.warning("no prompt of these rows shows a message; nothing is learnt from them")
            total = total + sum(0.0 * p.sum().to(total.device) for p in self._learning())
        items = self.n_items(rows) if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / items / sum(self.round_weights)}

    def _learning(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def _walk(self, rows: Sequence[Row], numbers: Sequence[int] | None) -> Tensor:
        """Weighted sum over answer tokens and rounds."""
        (system,) = self._system
        backbone = system.backbone_of(self.plan.output)
        answers = [answer_ids(backbone, str(row[self.answer_field])) for row in rows]
        earlier: list[Tensor] = []

        def score(turn: StepInput) -> Tensor:
            def read(x_BTD: Tensor) -> Tensor:
                prompt = turn.prompt._replace(x_BTD=x_BTD)
                with beginnings_kept():  # in a checkpoint's second run, too
                    taught = teacher_force(turn.backbone, prompt, answers, scored_only=True)
                return cross_entropy(turn.backbone.logits(taught.h_ND), taught.ids_N)

            if self._checkpoint and torch.is_grad_enabled():
                value: Tensor = checkpoint(
                    read, turn.prompt.x_BTD, use_reentrant=False, preserve_rng_state=False
                )
            else:
                value = read(turn.prompt.x_BTD)
            self._note(turn.step.round, value, answers)
            return value

        def score_earlier(turn: StepInput) -> None:
            weight = self.round_weights[turn.step.round - 1]
            final = isinstance(turn.step, Decode) and turn.step.final
            if final or turn.step.agent != self.plan.output:
                return
            if weight:
                earlier.append(weight * score(turn))
            elif self.round_losses is not None:
                with torch.no_grad():
                    score(turn)

        interpreter = Interpreter(
            team=system,
            plan=self.plan,
            executor=self._executor,
            sampling=Sampling(),
            on_turn=score_earlier,
            roll=self._roll(rows, numbers),
            send=self._send(numbers),
            edit=self.watch,
        )
        walk = interpreter.walk(rows, finish=score)
        return torch.stack([self.round_weights[-1] * walk.result, *earlier]).sum()

    def _note(self, number: int, value: Tensor, answers: Sequence[Sequence[int]]) -> None:
        if self.round_losses is not None:
            self.round_losses[number] = float(value.detach()) / sum(map(len, answers))

    def _roll(
        self, rows: Sequence[Row], numbers: Sequence[int] | None
    ) -> Callable[[Rollout, StepInput], Tensor | None]:
        """What takes a rollout's place; None lets it run."""
        if self.recipe == "released":
            return lambda step, turn: self._gold_states(turn, rows[0])
        constant = self.constant
        if constant is None or numbers is None or not torch.is_grad_enabled():
            return lambda step, turn: None
        return lambda step, turn: constant.states(self.plan, step, numbers)

    def _send(self, numbers: Sequence[int] | None) -> Callable[[Transfer], Tensor | None]:
        """What takes a transfer's place; None lets it run."""
        constant = self.constant
        gold = self.recipe == "released"
        if gold or constant is None or numbers is None or not torch.is_grad_enabled():
            return lambda step: None
        return lambda step: constant.message(self.plan, step, numbers)

    def _gold_states(self, turn: StepInput, row: Row) -> Tensor:
        """h_1KD after each token of the agent's own text, the first `RELEASED_ROWS` of them."""
        text = str(row[self.targets[turn.step.agent]])
        taught = teacher_force(turn.backbone, turn.prompt, [answer_ids(turn.backbone, text)])
        return taught.after_ND[None, :RELEASED_ROWS]


def default_weights(plan: Plan) -> list[float]:
    """The last round alone."""
    return [0.0] * (plan.graph.rounds - 1) + [1.0]


def _check_weights(plan: Plan, weights: Sequence[float]) -> None:
    rounds = plan.graph.rounds
    sound = all(isfinite(weight) and weight >= 0 for weight in weights)
    if len(weights) != rounds or not sound or not any(weights):
        raise ValueError(
            f"round_weights takes {rounds} numbers of 0 or more, not all zero, one for each round; "
            f"found {weights}; without it the last round alone counts"
        )
    speaks = {step.round for step in plan.turns() if step.agent == plan.output}
    for number, weight in enumerate(weights, start=1):
        if weight and number not in speaks:
            raise ValueError(
                f"round_weights gives {weight} to round {number}, where agent {plan.output!r} "
                "has no turn, for nothing of it feeds back; give 0 there"
            )

"""The interpreter's walk over a plan with stand-ins, and what each step of it costs.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from latentmas.cost.counting import Counting, CountingBatch, Fed, Ledger, Use
from latentmas.cost.explanation import StepCost
from latentmas.cost.hardware import Hardware
from latentmas.cost.memory import Memory
from latentmas.cost.roofline import FLOAT32, Model, Work, total
from latentmas.cost.standins import TeamStandIn
from latentmas.engine import MESSAGE, Executor
from latentmas.plan import Combine, Plan, Rollout, Step, Transfer
from latentmas.runtime import Interpreter, Sampling, StepEnd, StepInput

__all__ = ["Costs", "value_sizes"]


def value_sizes(plan: Plan, models: Mapping[str, Model | None]) -> dict[str, int]:
    """Bytes of each value's row at one latent step; a message is in float32."""
    sizes: dict[str, int] = {}
    for step in plan.steps:
        key = plan.graph.agent(step.agent).backbone
        model, width = models[key], plan.backbones[key].info.hidden_size
        if isinstance(step, Transfer):
            sizes[step.output] = plan.link(step.outer).out_dim * FLOAT32
        elif isinstance(step, Combine):
            sizes[step.output] = width * FLOAT32
        else:
            sizes[step.output] = width * model.size if model is not None else 0
    return sizes


@dataclass
class Costs:
    """Reads the ledger at the end of each step."""

    plan: Plan
    hardware: Hardware
    models: Mapping[str, Model | None]
    """By backbone key; None where its counts are not known."""
    memory: Memory
    ledger: Ledger
    blind: set[str]
    """Agents whose prompts are not known."""
    rows: list[StepCost] = field(default_factory=list)
    _turns: list[StepInput] = field(default_factory=list)
    """Turns since the last step's end."""
    _before: dict[str, Tensor] = field(default_factory=dict)
    """Ids of each agent's last prompt, (B, T)."""
    _known: dict[tuple[object, ...], tuple[Work, float]] = field(default_factory=dict)
    """Rounds are alike: what was added up before."""

    @torch.no_grad()
    def walk(
        self, team: TeamStandIn, kind: type[Executor], samples: Sequence[Mapping[str, Any]]
    ) -> tuple[StepCost, ...]:
        """Costs of all steps, in order; errors as the interpreter's."""
        interpreter = Interpreter(
            team=team,
            plan=self.plan,
            executor=Counting(kind, self.ledger),
            sampling=Sampling(),
            batch_class=CountingBatch,
            on_turn=self._turns.append,
            on_event=lambda event: self._ended(event) if isinstance(event, StepEnd) else None,
        )
        interpreter.walk(samples, values=self.ledger.values)
        return tuple(self.rows)

    def _ended(self, event: StepEnd) -> None:
        """A row for the step; none for a rollout that ran with an earlier one."""
        step, rows = self.plan.steps[event.step], event.samples * self.ledger.times
        if isinstance(step, Transfer):
            self.rows.append(self._transfer(event.step, step, rows))
        elif self._turns:
            self.rows.append(self._turn(event.step, step, rows * len(self._turns)))
        self._turns.clear()
        self.ledger.fed.clear()

    def _transfer(self, index: int, step: Transfer, rows: int) -> StepCost:
        uses = self.ledger.take_uses()
        work = self._link_work(uses)
        return StepCost(
            index=index,
            op="transfer",
            round=step.round,
            agents=(step.agent, step.target),
            rows=rows,
            latent_steps=uses[-1][1] // rows,
            flops=work.flops,
            weight_bytes=work.weight_bytes,
            state_bytes=work.state_bytes,
            link_rows=_link_rows(uses, 1),
            seconds=work.seconds(self.hardware, "float32", 0),
        )

    def _link_work(self, uses: Sequence[Use]) -> Work:
        """Links applied once, each to its rows: what they read is in products with each row."""
        work = Work()
        for link, rows in uses:
            source, target = self.models[link.planned.source], self.models[link.planned.target]
            read = float(link.reads.own * FLOAT32)
            read += link.reads.source * (source.size if source else 0.0)
            read += link.reads.target * (target.size if target else 0.0)
            work += Work(2.0 * sum(link.reads) * rows, read)
        return work

    # --- turns --------------------------------------------------------------------------------

    def _turn(self, index: int, step: Step, rows: int) -> StepCost:
        turns, agents = list(self._turns), tuple(turn.step.agent for turn in self._turns)
        fed = self.ledger.fed[0] if self.ledger.fed else None
        known = not self.blind & set(agents)
        positions = max(turn.prompt.x_BTD.shape[1] for turn in turns) if known else None
        again = [self._repeated(turn) for turn in turns]
        reused = 0 if fed is None else fed.reused
        row = StepCost(
            index=index,
            op="rollout" if isinstance(step, Rollout) else "decode",
            round=step.round,
            agents=agents,
            rows=rows,
            positions=positions,
            reused=reused if known else None,
            reread=max(0, max(again) - reused) if known else None,
            latent_steps=step.latent_steps if isinstance(step, Rollout) else 0,
            new_tokens=0 if fed is None else fed.tokens,
        )
        model = self.models[self.plan.graph.agent(step.agent).backbone]
        if model is None or not known:
            return row
        fed = fed or Fed(turns[0].backbone, row.rows, [(positions or 0, 0)])  # type: ignore[arg-type]
        idle = not (row.latent_steps or row.new_tokens)
        return self._costed(row, turns, model, fed, idle=idle)

    def _costed(
        self, row: StepCost, turns: Sequence[StepInput], model: Model, fed: Fed, *, idle: bool
    ) -> StepCost:
        prompt, reading = (Work(), 0.0) if idle else self._prompt(model, fed)
        inner = self._link_work(fed.inner)
        calls, going_on = self._calls(row.agents[0], model, fed, inner)
        work = prompt + calls
        reference = None if fed.tokens else self._reference(turns, model, fed, inner)
        return replace(
            row,
            reads=() if idle else tuple(fed.reads),
            calls=fed.calls,
            link_rows=_link_rows(fed.inner, fed.calls),
            flops=work.flops,
            weight_bytes=work.weight_bytes,
            state_bytes=work.state_bytes,
            memory=self.memory.peak(model, row.agents, fed),
            prompt_seconds=reading,
            call_seconds=going_on / fed.calls if fed.calls else 0.0,
            seconds=reading + going_on,
            reference_flops=None if reference is None else reference[0].flops,
            reference_seconds=None if reference is None else reference[1],
        )

    def _repeated(self, turn: StepInput) -> int:
        """Columns of text, before and behind what differs, that the agent's last turn has too."""
        now_BT, before_BT = turn.prompt.ids_BT, self._before.get(turn.step.agent)
        assert now_BT is not None
        self._before[turn.step.agent] = now_BT
        if before_BT is None:
            return 0
        width = min(before_BT.shape[1], now_BT.shape[1])
        same_T = (before_BT[:, :width] == now_BT[:, :width]).all(dim=0)
        head = int(same_T.long().cumprod(dim=0).sum())
        same_T = (before_BT[:, -width:] == now_BT[:, -width:]).all(dim=0).flip(0)
        tail = min(int(same_T.long().cumprod(dim=0).sum()), width - head)
        kept_BT = torch.cat([now_BT[:, :head], now_BT[:, now_BT.shape[1] - tail :]], dim=1)
        return int((kept_BT != MESSAGE).sum()) // len(kept_BT)

    # --- adding up ----------------------------------------------------------------------------

    def _prompt(self, model: Model, fed: Fed) -> tuple[Work, float]:
        works = [model.call(fed.rows, new, past) for new, past in fed.reads]
        if fed.tokens:
            works[-1] += model.head(fed.rows)
        return self._add(works, model)

    def _calls(self, agent: str, model: Model, fed: Fed, inner: Work) -> tuple[Work, float]:
        """Latent steps or tokens after the prompt."""
        each = model.head(fed.rows) if fed.tokens else inner
        key = (agent, "calls", fed.rows, fed.positions, fed.calls, each)
        if key not in self._known:
            past = range(fed.positions, fed.positions + fed.calls)
            works = [model.call(fed.rows, 1, length) + each for length in past]
            self._known[key] = self._add(works, model)
        return self._known[key]

    def _reference(
        self, turns: Sequence[StepInput], model: Model, fed: Fed, inner: Work
    ) -> tuple[Work, float]:
        """The loop that reads each prompt again at each latent step, agent by agent."""
        rows, own, works = fed.rows // len(turns), Work(inner.flops / len(turns)), []
        for turn in turns:
            length = turn.prompt.x_BTD.shape[1]
            key = (turn.step.agent, "reference", length, fed.calls)
            if key not in self._known:
                lengths = range(length, length + fed.calls + 1)
                calls = [model.call(rows, n, cached=False) for n in lengths]
                calls[1:] = [call + own for call in calls[1:]]
                self._known[key] = self._add(calls, model)
            works.append(self._known[key])
        return total(work for work, _ in works), sum(seconds for _, seconds in works)

    def _add(self, works: Sequence[Work], model: Model) -> tuple[Work, float]:
        layers = model.info.num_layers
        seconds = sum(work.seconds(self.hardware, model.dtype, layers) for work in works)
        return total(works), seconds


def _link_rows(uses: Sequence[Use], times: int) -> dict[str, int]:
    """Rows that go through each link, by id."""
    found: dict[str, int] = {}
    for link, rows in uses:
        found[link.planned.id] = found.get(link.planned.id, 0) + rows * times
    return found

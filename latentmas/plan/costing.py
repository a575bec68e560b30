"""Walks over a plan's steps to estimate the cost of a run with the `cached` executor.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from latentmas.plan.cost import FLOAT32, Model, Run, Work, total
from latentmas.plan.explanation import StepCost
from latentmas.plan.hardware import Hardware
from latentmas.plan.links import LinkPlan
from latentmas.plan.memory import Memory
from latentmas.plan.plan import Plan
from latentmas.plan.reading import WORTHWHILE, Reading, Turn
from latentmas.plan.steps import Decode, Rollout, Transfer, rollouts_together

__all__ = ["Costing"]


@dataclass
class _Prefix:
    """Prompt positions whose state an agent keeps for its later turns."""

    turn: Turn
    """The turn that first reads them."""
    positions: int
    kept: bool = False
    """Whether their state is available."""


@dataclass
class Costing:
    """Walks the steps of a plan once."""

    plan: Plan
    reading: Reading
    hardware: Hardware
    batch: int
    models: Mapping[str, Model | None]
    """Costs by backbone key; None if its counts are unknown."""
    memory: Memory
    _prefixes: dict[str, _Prefix] = field(default_factory=dict)
    _members: dict[str, list[tuple[int, _Prefix]]] = field(default_factory=dict)
    """For agents of one batch: the padding of each, and its own prefix."""
    _before: dict[str, Turn] = field(default_factory=dict)
    """The last turn of each agent."""
    _known: dict[tuple[object, ...], tuple[Work, float]] = field(default_factory=dict)
    """Cached sums, since rounds repeat."""

    def rows(self) -> tuple[StepCost, ...]:
        """The costs of all steps, in order."""
        last = {name: i for i, step in enumerate(self.plan.steps) for name in step.reads}
        dead: dict[int, list[str]] = {}
        for name, index in last.items():
            dead.setdefault(index, []).append(name)
        found: list[StepCost] = []
        done: set[int] = set()
        for index, step in enumerate(self.plan.steps):
            if isinstance(step, Transfer):
                found.append(self._transfer(index, step))
            elif index not in done:
                indices = rollouts_together(self.plan.steps, index, self._share) or [index]
                done.update(indices)
                found.append(self._turn(indices))
            for name in dead.get(index, ()):
                self.memory.values.pop(name, None)
        return tuple(found)

    def _share(self, one: str, other: str) -> bool:
        return any({one, other} <= set(each.agents) for each in self.plan.backbones.values())

    def _transfer(self, index: int, step: Transfer) -> StepCost:
        outer = self.plan.link(step.outer)
        links = [outer] if "states" in outer.needs else [self.plan.link(step.inner), outer]
        width = outer.out_dim
        steps = self.plan.graph.steps_of(self.plan.graph.agent(step.agent))
        work = self._link_work(links, steps * self.batch)
        self.memory.values[step.output] = self.batch * steps * width * FLOAT32
        return StepCost(
            index=index,
            op="transfer",
            round=step.round,
            agents=(step.agent, step.target),
            rows=self.batch,
            latent_steps=steps,
            flops=work.flops,
            weight_bytes=work.weight_bytes,
            state_bytes=work.state_bytes,
            seconds=work.seconds(self.hardware, "float32", 0),
        )

    def _link_work(self, links: Sequence[LinkPlan], rows: int) -> Work:
        """Cost of links over some rows: their weights and the parts of backbones they use."""
        own = sum(link.n_parameters for link in links)
        work = Work(2.0 * own * rows, float(own * FLOAT32))
        for link in links:
            for need, key in (("head", link.source), ("embeddings", link.target)):
                if need in link.needs:
                    info, model = self.plan.backbones[key].info, self.models[key]
                    count = info.vocab_size * info.hidden_size
                    work += Work(2.0 * count * rows, count * (model.size if model else 0.0))
        return work

    # --- turns --------------------------------------------------------------------------------

    def _turn(self, indices: list[int]) -> StepCost:
        turns = tuple(t for i in indices if not isinstance(t := self.plan.steps[i], Transfer))
        first, steps = turns[0], 0
        tokens = (first.max_new_tokens or 0) if isinstance(first, Decode) else 0
        if isinstance(first, Rollout):
            steps = first.latent_steps
        positions = self._longest(turns)
        prefixes = [self._prefix(turn) for turn in turns]
        prefix = prefixes[0] if len(turns) == 1 else self._merged(turns, prefixes)
        reused = prefix.positions if prefix is not None and prefix.kept else 0
        row = StepCost(
            index=indices[0],
            op=first.op,
            round=first.round,
            agents=tuple(turn.agent for turn in turns),
            rows=self.batch * len(turns),
            positions=positions,
            reused=None if positions is None else reused,
            reread=None if positions is None else self._reread(turns, reused),
            latent_steps=steps,
            new_tokens=tokens,
        )
        self._before |= {turn.agent: turn for turn in turns}
        model = self._model(first.agent)
        if model is None or positions is None:
            return row
        links = [self.plan.link(turn.inner) for turn in turns if isinstance(turn, Rollout)]
        run = Run(
            model=model,
            rows=row.rows,
            agents=len(turns),
            positions=positions,
            cut=0 if prefix is None else prefix.positions,
            reused=bool(reused),
            calls=max(0, (tokens or steps) - 1),
            inner=self._link_work(links, self.batch),
            decodes=isinstance(first, Decode),
        )
        idle = not (steps or tokens)
        if prefix is not None and not idle:
            prefix.kept = True
            kept = self.memory.kept(model, row.rows, prefix.positions)
            self.memory.put_by[" ".join(row.agents)] = kept
        return self._costed(row, turns, run, idle=idle)

    def _costed(self, row: StepCost, turns: Sequence[Turn], run: Run, *, idle: bool) -> StepCost:
        agent = row.agents[0]
        prompt, reading = (Work(), 0.0) if idle else self._prompt(run)
        calls, going_on = self._calls(agent, run)
        memory = self.memory.peak(self.plan.graph.agent(agent).backbone, agent, run)
        position = run.model.info.hidden_size * run.model.size
        for turn in turns:
            if isinstance(turn, Rollout):
                self.memory.values[turn.output] = self.batch * turn.latent_steps * position
        work = prompt + calls
        reference = None if run.decodes else self._reference(turns, run)
        return replace(
            row,
            flops=work.flops,
            weight_bytes=work.weight_bytes,
            state_bytes=work.state_bytes,
            memory=memory,
            prompt_seconds=reading,
            call_seconds=going_on / run.calls if run.calls else 0.0,
            seconds=reading + going_on,
            reference_flops=None if reference is None else reference[0].flops,
            reference_seconds=None if reference is None else reference[1],
        )

    def _prefix(self, turn: Turn) -> _Prefix | None:
        """The prefix of a turn: kept from an earlier turn, or to be kept for the next one."""
        agent = self.plan.graph.agent(turn.agent)
        positions = self.reading.positions(turn)
        if positions is None or (agent.tools and agent.tool_style == "chat"):
            return None
        left = self._prefixes.get(turn.agent)
        fits = left is not None and left.positions < positions
        if left is not None and fits and self.reading.shared(left.turn, turn) >= left.positions:
            return left
        after = self._after.get(id(turn))
        if after is None or any(name in self._spoken for name in after.inputs.values()):
            return None
        length = self.reading.positions(after)
        if length is None:
            return None
        count = min(self.reading.shared(turn, after), positions - 1, length - 1)
        if count < WORTHWHILE:
            return None
        self._prefixes[turn.agent] = _Prefix(turn, count)
        return self._prefixes[turn.agent]

    def _merged(self, turns: Sequence[Turn], own: Sequence[_Prefix | None]) -> _Prefix | None:
        """Same for the turns of one batch, whose prompts are padded to the longest."""
        name, found = " ".join(turn.agent for turn in turns), list[tuple[int, _Prefix]]()
        longest = self._longest(turns)
        for turn, prefix in zip(turns, own, strict=True):
            length = self.reading.positions(turn)
            if longest is None or length is None or prefix is None:
                return None
            found.append((longest - length, prefix))
        left = self._prefixes.get(name)
        if left is not None and self._members.get(name) == found:
            return left
        count = min(padding + prefix.positions for padding, prefix in found)
        if count < WORTHWHILE or count <= max(padding for padding, _ in found):
            return None
        self._members[name] = found
        self._prefixes[name] = _Prefix(turns[0], count)
        return self._prefixes[name]

    @cached_property
    def _after(self) -> dict[int, Turn]:
        """The next turn of the same agent, by `id` of a turn."""
        found: dict[int, Turn] = {}
        upcoming: dict[str, Turn] = {}
        for turn in reversed(self.plan.turns()):
            if turn.agent in upcoming:
                found[id(turn)] = upcoming[turn.agent]
            upcoming[turn.agent] = turn
        return found

    @cached_property
    def _spoken(self) -> set[str]:
        """Values that are texts written by agents."""
        return {step.output for step in self.plan.steps if isinstance(step, Decode)}

    def _reread(self, turns: Sequence[Turn], reused: int) -> int:
        again = [
            self.reading.repeated(self._before[turn.agent], turn)
            for turn in turns
            if turn.agent in self._before
        ]
        return max(0, max(again, default=0) - reused)

    def _longest(self, turns: Sequence[Turn]) -> int | None:
        lengths = [self.reading.positions(turn) for turn in turns]
        known = [length for length in lengths if length is not None]
        return max(known) if len(known) == len(turns) else None

    def _model(self, agent: str) -> Model | None:
        return self.models[self.plan.graph.agent(agent).backbone]

    # --- adding up ----------------------------------------------------------------------------

    def _prompt(self, run: Run) -> tuple[Work, float]:
        works = [run.model.call(run.rows, new, past) for new, past in run.prompt]
        if run.decodes:
            works[-1] += run.model.head(run.rows)
        return self._add(works, run.model)

    def _calls(self, agent: str, run: Run) -> tuple[Work, float]:
        """Latent steps or tokens after the prompt."""
        each = run.model.head(run.rows) if run.decodes else run.inner
        key = (agent, "calls", run.rows, run.positions, run.calls, run.inner)
        if key not in self._known:
            past = range(run.positions, run.positions + run.calls)
            works = [run.model.call(run.rows, 1, length) + each for length in past]
            self._known[key] = self._add(works, run.model)
        return self._known[key]

    def _reference(self, turns: Sequence[Turn], run: Run) -> tuple[Work, float]:
        """The reference loop, which rereads each prompt at each latent step, agent by agent."""
        inner = Work(run.inner.flops / run.agents)
        works = []
        for turn in turns:
            length = self.reading.positions(turn) or 0
            key = (turn.agent, "reference", length, run.calls)
            if key not in self._known:
                lengths = range(length, length + run.calls + 1)
                calls = [run.model.call(self.batch, n, cached=False) for n in lengths]
                calls[1:] = [call + inner for call in calls[1:]]
                self._known[key] = self._add(calls, run.model)
            works.append(self._known[key])
        return total(work for work, _ in works), sum(seconds for _, seconds in works)

    def _add(self, works: Sequence[Work], model: Model) -> tuple[Work, float]:
        layers = model.info.num_layers
        seconds = sum(work.seconds(self.hardware, model.dtype, layers) for work in works)
        return total(works), seconds

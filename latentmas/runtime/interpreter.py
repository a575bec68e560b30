"""One walk over a plan's steps, many readings: running, recording and training.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.engine import GroupedInner, Packed, Prefix, StepInput, merge, merged_prefix
from latentmas.errors import ExecutionError
from latentmas.generation import DecodeJob, GenerationBatch, Retry, Sampling, ToolCall
from latentmas.plan import Combine, Decode, Plan, Rollout, Step, Transfer, Value, rollouts_together
from latentmas.runtime.combine import combine_messages, combine_texts
from latentmas.runtime.functions import outside_text
from latentmas.runtime.observing.events import (
    SampleCost,
    StepBegin,
    StepEnd,
    StepRecord,
    Token,
    Watcher,
    step_record,
    written_record,
)
from latentmas.runtime.observing.taps import passing_texts
from latentmas.runtime.step_input import make_step_input

if TYPE_CHECKING:
    from latentmas.engine import Executor, Team

__all__ = ["Interpreter", "BatchState"]

Content = Tensor | list[str]
"""What a value holds: states or a message, (B, K, D), or B texts."""
EditMessage = Callable[[str, Tensor], Tensor]
"""Takes a message's name and message_BKD; returns what arrives in its place."""
Finish = Callable[[StepInput], Any]
"""Reads the last turn of a walk: a score, say. Its result is the walk's."""


@dataclass
class BatchState:
    """What one walk over a batch has brought."""

    samples: Sequence[Mapping[str, Any]]
    """B mappings of sample fields."""
    rows: Sequence[int]
    """Their numbers in the run."""
    batch: int = 0
    """Number of the batch, for events."""
    result: Any = None
    """What `finish` returned, or each sample's answers from the final decode."""
    values: dict[str, Content] = field(default_factory=dict)
    """Values still needed, and those to keep."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Edited texts, by the name of what passes along their edge."""
    records: list[StepRecord] = field(default_factory=list)
    calls: list[list[ToolCall]] = field(default_factory=list)
    """Each sample's tool calls, of all agents so far."""
    costs: list[SampleCost] = field(default_factory=list)
    """Each sample's tokens and latent steps, of all agents so far."""
    prefixes: dict[str, Prefix] = field(default_factory=dict)
    """Beginnings of prompts that agents read in several turns."""
    draft: DecodeJob | None = None
    """The final texts, while they are being written in a pool."""
    finite: dict[str, Tensor] = field(default_factory=dict)
    """By message whether all of it is finite: looked at before text is written, not at once."""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """Walks the steps of a plan over one batch after another."""

    team: Team
    plan: Plan
    executor: Executor
    sampling: Sampling
    num_return_sequences: int = 1
    """Answers of each sample, from one latent phase."""
    retry: Retry | None = None
    """A second chance for answers that hold none."""
    keep: Callable[[Step], bool] = lambda step: False
    """Whether a step's value stays in `BatchState.values` to the end."""
    batch_class: type[GenerationBatch] = GenerationBatch
    """What texts are written in; the cost model only counts them."""
    on_event: Watcher = lambda event: None
    edit: Callable[[Value, Any], Any] | None = None
    """Takes what passes along an edge and its content; returns what arrives in its place."""
    roll: Callable[[Rollout, StepInput], Tensor | None] = lambda step, turn: None
    """Gives a rollout's states in its place; None lets it run."""
    send: Callable[[Transfer], Tensor | None] = lambda step: None
    """Gives a transfer's message in its place; None lets links make it."""
    on_turn: Callable[[StepInput], None] = lambda turn: None
    """Called before each model step: a way to score earlier rounds."""

    def walk(
        self,
        samples: Sequence[Mapping[str, Any]],
        *,
        finish: Finish | None = None,
        pool: GenerationBatch | None = None,
        rows: Sequence[int] | None = None,
        batch: int = 0,
        values: dict[str, Content] | None = None,
    ) -> BatchState:
        """Walk all steps over one batch.

        Args:
            samples: B mappings of sample fields.
            finish: reads the final turn in place of decoding text.
            pool: where the final texts are written; they are only begun, and `complete` is called
                when they are done. None: they are written here.
            rows: numbers of the samples in the run; None counts from 0.
            batch: number of the batch, for events.
            values: where values are kept while they are needed; None: a mapping of the walk's own.

        Raises:
            ExecutionError: from whatever failed, with step, agent and round.
        """
        walk = BatchState(samples, range(len(samples)) if rows is None else rows, batch)
        walk.calls, walk.costs = [[] for _ in samples], [SampleCost() for _ in samples]
        if values is not None:
            walk.values = values
        self._say_sources(walk)
        dead_after, turns = self._dead_after(), dict[int, StepInput]()
        for index, step in enumerate(self.plan.steps):
            self.on_event(StepBegin(batch, index, step.op, step.agent, step.round))
            began = time.perf_counter()
            with self.annotate_errors(index):
                if index not in turns and step.output not in walk.values:
                    turns |= self._roll_together(index, walk)
                record = self._run(index, walk, finish, pool, turns.pop(index, None))
                _synchronise(self.team.backbone_of(step.agent).device)
            if walk.draft is None:
                self._ended(walk, index, time.perf_counter() - began, record)
            for name in dead_after[index]:
                walk.values.pop(name, None)
        return walk

    def complete(self, walk: BatchState) -> None:
        """Take in the final texts of a walk, which have been written in a pool."""
        draft, index = walk.draft, len(self.plan.steps) - 1
        assert draft is not None
        walk.draft = None
        record = self._take_in(walk, draft)
        self._ended(walk, index, draft.seconds, record)

    @contextmanager
    def annotate_errors(self, index: int) -> Iterator[None]:
        """Turn errors inside into ones that name a step."""
        step = self.plan.steps[index]
        try:
            yield
        except Exception as error:  # a tap, a tool or a watcher may raise anything
            raise ExecutionError(
                str(error) or repr(error), step=index, agent=step.agent, round=step.round
            ) from error

    def _say_sources(self, walk: BatchState) -> None:
        """Let the text sources speak; one that fails is told with the first step that reads it."""
        for source in self.plan.graph.text_sources:
            readers = (i for i, step in enumerate(self.plan.steps) if source.name in step.reads)
            with self.annotate_errors(next(readers, 0)):
                walk.values[source.name] = outside_text(
                    source, self.team.text_functions, walk.samples, walk.rows
                )

    def _ended(
        self, walk: BatchState, index: int, seconds: float, record: StepRecord | None
    ) -> None:
        """Tell that a step has ended."""
        step, count = self.plan.steps[index], len(walk.samples)
        if record is not None:
            record = replace(record, seconds=seconds)
            walk.records.append(record)
        where = (walk.batch, index, step.op, step.agent, step.round)
        self.on_event(StepEnd(*where, seconds, record, count))

    def _dead_after(self) -> list[list[str]]:
        """For each step, the values that nothing needs after it."""
        last = {name: i for i, step in enumerate(self.plan.steps) for name in step.reads}
        kept = {step.output for step in self.plan.steps if self.keep(step)}
        dead: list[list[str]] = [[] for _ in self.plan.steps]
        for name, index in last.items():
            if name not in kept:
                dead[index].append(name)
        return dead

    def _run(
        self,
        index: int,
        walk: BatchState,
        finish: Finish | None,
        pool: GenerationBatch | None,
        turn: StepInput | None,
    ) -> StepRecord | None:
        """Run a step; `turn` is given when its states are there already."""
        step = self.plan.steps[index]
        if isinstance(step, Transfer):
            walk.values[step.output] = self._transfer(step, walk)
            return None
        if isinstance(step, Combine):
            walk.values[step.output] = self._combine(step, walk)
            return None
        if turn is None:
            turn = self._turn(step, walk)
            self.on_turn(turn)
            if isinstance(step, Rollout):
                walk.values[step.output] = self._rollout(step, turn)
        latent_steps = step.latent_steps if isinstance(step, Rollout) else 0
        for cost, length in zip(walk.costs, turn.prompt.lengths, strict=True):
            cost.prompt_tokens += length
            cost.latent_steps += latent_steps
        if isinstance(step, Rollout):
            return step_record(turn, latent_steps=latent_steps * len(walk.samples))
        if step.final and finish is not None:
            walk.result = finish(turn)
            return step_record(turn)
        with torch.no_grad():
            return self._write(step, turn, walk, pool)

    def _write(
        self, step: Decode, turn: StepInput, walk: BatchState, pool: GenerationBatch | None
    ) -> StepRecord | None:
        """Write a step's texts, or begin them where a pool takes the final ones."""
        _refuse_not_finite(walk.finite)
        draft = self._draft(step, turn, walk)
        if step.final and pool is not None:
            draft.begin(pool)
            walk.draft = draft
            return None
        own = self.pool(step)
        draft.begin(own)
        own.run()
        return self._take_in(walk, draft)

    @staticmethod
    def _take_in(walk: BatchState, draft: DecodeJob) -> StepRecord:
        """Give a walk the texts of a draft that is done, and the calls made for them."""
        answers = draft.answers()
        walk.values[draft.turn.step.output] = [own[0].text for own in answers]
        walk.result = answers
        for calls, cost, own in zip(walk.calls, walk.costs, answers, strict=True):
            calls += [call for answer in own for call in answer.calls]
            cost.new_tokens += sum(answer.chosen for answer in own)
        return written_record(draft.turn, [answer for own in answers for answer in own])

    def _roll_together(self, index: int, walk: BatchState) -> dict[int, StepInput]:
        """Run the rollouts that begin at a step and need no others, where there are several.

        Their states go to the walk's values; their turns are returned by step.
        """
        if not self.executor.groups:
            return {}
        indices = rollouts_together(self.plan.steps, index, self._share)
        if len(indices) < 2:
            return {}
        steps = [s for s in (self.plan.steps[i] for i in indices) if isinstance(s, Rollout)]
        turns = [self._turn(step, walk) for step in steps]
        for step, turn in zip(steps, turns, strict=True):
            self.on_turn(turn)
            if (given := self.roll(step, turn)) is not None:
                walk.values[step.output] = given
        open_ = [i for i, step in enumerate(steps) if step.output not in walk.values]
        if open_:
            links, rows = [self.team.link(steps[i].inner) for i in open_], len(walk.samples)
            inner, count = GroupedInner(links, [rows] * len(open_)), steps[0].latent_steps
            prompt = self._merged([turns[i] for i in open_], walk)
            states = self.executor.rollout(turns[0].backbone, inner, prompt, count)
            for i, own in zip(open_, states.split(rows), strict=True):
                walk.values[steps[i].output] = own
        return dict(zip(indices, turns, strict=True))

    def _merged(self, turns: Sequence[StepInput], walk: BatchState) -> Packed:
        """The prompts of several agents as one batch, with the prefix that they share by rounds."""
        own = [(turn.prompt.x_BTD.shape[1], turn.prompt.prefix) for turn in turns]
        prompt, agents = merge([turn.prompt for turn in turns]), [turn.step.agent for turn in turns]
        left = walk.prefixes.get(name := " ".join(agents))
        if (prefix := merged_prefix(prompt.ids_BT, own, left)) is None:
            return prompt
        walk.prefixes[name] = prefix
        return prompt._replace(prefix=prefix)

    def _share(self, one: str, other: str) -> bool:
        return self.team.backbone_of(one) is self.team.backbone_of(other)

    def _turn(self, step: Rollout | Decode, walk: BatchState) -> StepInput:
        prefixes = walk.prefixes if self.executor.reuses else None
        self.executor.prepare(self.team.backbone_of(step.agent))
        texts = self._edited_texts(step, walk)
        return make_step_input(
            self.team, self.plan, step, walk.samples, walk.values, prefixes, texts=texts
        )

    def _edited_texts(self, step: Rollout | Decode, walk: BatchState) -> dict[str, list[str]]:
        """Slot → edited texts. Each is edited once in a round, though a round may read it twice."""
        found: dict[str, list[str]] = {}
        if self.edit is None:
            return found
        combined = {made.output for made in self.plan.steps if isinstance(made, Combine)}
        for slot, source in step.inputs.items():
            value = walk.values[source]
            if not isinstance(value, Tensor) and source not in combined:
                (passing,) = passing_texts(self.plan, step, slot)
                if passing.name not in walk.texts:
                    walk.texts[passing.name] = self.edit(passing, value)
                found[slot] = walk.texts[passing.name]
        return found

    def _rollout(self, step: Rollout, turn: StepInput) -> Tensor:
        given = self.roll(step, turn)
        if given is not None:
            return given
        inner = self.team.link(step.inner)
        return self.executor.rollout(turn.backbone, inner, turn.prompt, step.latent_steps)

    def _transfer(self, step: Transfer, walk: BatchState) -> Tensor:
        message_BKD = self.send(step)
        if message_BKD is None:
            states = walk.values[step.source]
            assert isinstance(states, Tensor)  # the plan's verifier has made sure
            inner, outer = self.team.link(step.inner), self.team.link(step.outer)
            read = states if "states" in outer.needs else inner.apply_to(states)
            message_BKD = outer.message(read)
        if self.edit is not None:
            message_BKD = self.edit(step.value, message_BKD)
        walk.finite[step.output] = message_BKD.detach().isfinite().all()
        return message_BKD

    def _combine(self, step: Combine, walk: BatchState) -> Content:
        values = [walk.values[name] for name in step.sources]
        messages = [value for value in values if isinstance(value, Tensor)]
        if messages:
            device = self.team.backbone_of(step.agent).device  # senders may be on others
            return combine_messages(step.how, [message.to(device) for message in messages])
        texts = [value for value in values if not isinstance(value, Tensor)]
        if self.edit is not None:
            passing = passing_texts(self.plan, step, step.slot)
            texts = [self.edit(*pair) for pair in zip(passing, texts, strict=True)]
        return combine_texts(texts)

    def pool(self, step: Decode) -> GenerationBatch:
        """A pool for a step's texts."""
        backbone = self.team.backbone_of(step.agent)
        return self.batch_class(self.executor, backbone, self._sampling(step))

    def _draft(self, step: Decode, turn: StepInput, walk: BatchState) -> DecodeJob:
        count = self.num_return_sequences if step.final else 1

        def announce(row: int, token: int) -> None:
            sample, sequence = divmod(row, count)
            self.on_event(Token(walk.rows[sample], step.agent, token, sequence))

        return DecodeJob(
            turn,
            self.plan.graph.agent(step.agent),
            num_return_sequences=count,
            sampling=self._sampling(step),
            streams=[
                self.sampling.stream(row, f"{step.agent}/{step.round}", sequence)
                for row in walk.rows
                for sequence in range(count)
            ],
            tools=self.team.tools,
            retry=self.retry if step.final else None,
            on_token=announce if step.final else None,
        )

    def _sampling(self, step: Decode) -> Sampling:
        """The run's, with the agent's own limit; stop strings are for the answer alone."""
        limit = self.sampling.max_new_tokens if step.max_new_tokens is None else step.max_new_tokens
        stop = self.sampling.stop if step.final else ()
        return replace(self.sampling, max_new_tokens=limit, stop=stop)


def _refuse_not_finite(finite: dict[str, Tensor]) -> None:
    bad = next((name for name, flag in finite.items() if not flag), None)
    if bad is not None:
        raise ValueError(
            f"message {bad!r} holds values that are not finite; its links, or an edit, make them: "
            "look at the links' norms (latentmas inspect) and load sound ones"
        )
    finite.clear()


def _synchronise(device: torch.device) -> None:
    """Wait for the device, so that the seconds belong to the step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

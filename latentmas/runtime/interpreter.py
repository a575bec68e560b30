"""One walk over a plan's steps, many readings: running, recording and training.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.errors import ExecutionError, LatentMASError
from latentmas.plan import Decode, Plan, Rollout, Step, Transfer, reads
from latentmas.runtime.calling import tool_schemas
from latentmas.runtime.events import StepBegin, StepEnd, Token, TurnRecord, Watcher
from latentmas.runtime.groups import GroupedInner, merge
from latentmas.runtime.packing import Packed, pack
from latentmas.runtime.prefixes import Prefix
from latentmas.runtime.reuse import find_prefix
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.steering import Retry
from latentmas.runtime.writing import Answer, write

if TYPE_CHECKING:
    from latentmas.runtime.executors._base import Executor
    from latentmas.runtime.system import System

__all__ = ["Interpreter", "Turn", "Walk"]

Value = Tensor | list[str]
EditMessage = Callable[[str, Tensor], Tensor]
"""Takes a message's name and message_BKD; returns what arrives in its place."""


class Turn(NamedTuple):
    """A model step about to run: who reads what."""

    step: Rollout | Decode
    backbone: LoadedBackbone
    prompt: Packed


Finish = Callable[[Turn], Any]
"""Reads the last turn of a walk: a score, say. Its result is the walk's."""


@dataclass
class Walk:
    """What one walk over a batch has brought."""

    result: Any = None
    """What `finish` returned, or each sample's answers from the final decode."""
    values: dict[str, Value] = field(default_factory=dict)
    """Values still needed, and those to keep."""
    records: list[TurnRecord] = field(default_factory=list)
    prefixes: dict[str, Prefix] = field(default_factory=dict)
    """Beginnings of prompts that agents read in several turns."""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """Walks the steps of a plan over one batch after another."""

    system: System
    plan: Plan
    executor: Executor
    sampling: Sampling
    num_return_sequences: int = 1
    """Answers of each sample, from one latent phase."""
    retry: Retry | None = None
    """A second chance for answers that hold none."""
    keep: Callable[[Step], bool] = lambda step: False
    """Whether a step's value stays in `Walk.values` to the end."""
    on_event: Watcher = lambda event: None
    edit_message: EditMessage | None = None
    roll: Callable[[Rollout, Turn], Tensor | None] = lambda step, turn: None
    """Gives a rollout's states in its place; None lets it run."""
    on_turn: Callable[[Turn], None] = lambda turn: None
    """Called before each model step: a way to score earlier rounds."""

    def walk(
        self,
        samples: Sequence[Mapping[str, Any]],
        *,
        finish: Finish | None = None,
        batch: int = 0,
        first_row: int = 0,
    ) -> Walk:
        """Walk all steps over one batch.

        Args:
            samples: B mappings of sample fields.
            finish: reads the final turn in place of decoding text.
            batch: number of the batch, for events.
            first_row: number of its first sample in the run.

        Raises:
            ExecutionError: from whatever failed, with step, agent and round.
        """
        walk = Walk(values=self.system.outside_texts(samples))
        dead_after, turns, index = self._dead_after(), dict[int, Turn](), 0
        for index, step in enumerate(self.plan.steps):
            self.on_event(StepBegin(batch, index, step.op, step.agent, step.round))
            began = time.perf_counter()
            try:
                if index not in turns and step.output not in walk.values:
                    turns |= self._roll_together(index, samples, walk)
                record = self._run(index, samples, walk, finish, first_row, turns.pop(index, None))
                _synchronise(self.system.backbone_of(step.agent).device)
            except (LatentMASError, RuntimeError, ValueError, LookupError, TypeError) as error:
                raise ExecutionError(
                    str(error) or repr(error), step=index, agent=step.agent, round=step.round
                ) from error
            seconds = time.perf_counter() - began
            if record is not None:
                record = replace(record, seconds=seconds)
                walk.records.append(record)
            self.on_event(StepEnd(batch, index, step.op, step.agent, step.round, seconds, record))
            for name in dead_after[index]:
                walk.values.pop(name, None)
        return walk

    def _dead_after(self) -> list[list[str]]:
        """For each step, the values that nothing needs after it."""
        last = {name: i for i, step in enumerate(self.plan.steps) for name in reads(step)}
        kept = {step.output for step in self.plan.steps if self.keep(step)}
        dead: list[list[str]] = [[] for _ in self.plan.steps]
        for name, index in last.items():
            if name not in kept:
                dead[index].append(name)
        return dead

    def _run(
        self,
        index: int,
        samples: Sequence[Mapping[str, Any]],
        walk: Walk,
        finish: Finish | None,
        first_row: int,
        turn: Turn | None,
    ) -> TurnRecord | None:
        """Run a step; `turn` is given when its states are there already."""
        step = self.plan.steps[index]
        if isinstance(step, Transfer):
            walk.values[step.output] = self._transfer(step, walk)
            return None
        if turn is None:
            turn = self._turn(step, samples, walk)
            self.on_turn(turn)
            if isinstance(step, Rollout):
                walk.values[step.output] = self._rollout(step, turn)
        if isinstance(step, Rollout):
            return _record(turn, latent_steps=step.latent_steps * len(samples))
        if step.final and finish is not None:
            walk.result = finish(turn)
            return _record(turn)
        answers = self._decode(step, turn, first_row)
        walk.values[step.output] = [own[0].text for own in answers]
        walk.result = answers
        written = [answer for own in answers for answer in own]
        return _record(
            turn,
            new_tokens=sum(answer.chosen for answer in written),
            tool_calls=sum(len(answer.calls) for answer in written),
            added_tokens=sum(len(answer.ids) - answer.chosen for answer in written),
        )

    def _roll_together(
        self, index: int, samples: Sequence[Mapping[str, Any]], walk: Walk
    ) -> dict[int, Turn]:
        """Run the rollouts that begin at a step and need no others, where there are several.

        They are of one round and group, on one backbone, with equally many latent steps. Their
        states go to the walk's values; their turns are returned by step.
        """
        indices = self._together(index) if self.executor.groups else []
        if len(indices) < 2:
            return {}
        steps = [s for s in (self.plan.steps[i] for i in indices) if isinstance(s, Rollout)]
        turns = [self._turn(step, samples, walk) for step in steps]
        for step, turn in zip(steps, turns, strict=True):
            self.on_turn(turn)
            if (given := self.roll(step, turn)) is not None:
                walk.values[step.output] = given
        open_ = [i for i, step in enumerate(steps) if step.output not in walk.values]
        if open_:
            links = [self.system.link(steps[i].inner) for i in open_]
            inner = GroupedInner(links, [len(samples)] * len(open_))
            prompt, count = merge([turns[i].prompt for i in open_]), steps[0].latent_steps
            states = self.executor.rollout(turns[0].backbone, inner, prompt, count)
            for i, own in zip(open_, states.split(len(samples)), strict=True):
                walk.values[steps[i].output] = own
        return dict(zip(indices, turns, strict=True))

    def _together(self, index: int) -> list[int]:
        """This rollout and those after it that may join it."""
        first, found = self.plan.steps[index], list[int]()
        if not isinstance(first, Rollout):
            return found
        for i, step in enumerate(self.plan.steps[index:], start=index):
            if not isinstance(step, Rollout):
                break
            if (step.round, step.group) != (first.round, first.group):
                break
            same = self.system.backbone_of(step.agent) is self.system.backbone_of(first.agent)
            if same and step.latent_steps == first.latent_steps:
                found.append(i)
        return found

    def _turn(
        self,
        step: Rollout | Decode,
        samples: Sequence[Mapping[str, Any]],
        walk: Walk,
    ) -> Turn:
        backbone, agent = self.system.backbone_of(step.agent), self.plan.graph.agent(step.agent)
        inputs = {slot: walk.values[name] for slot, name in step.inputs.items()}
        messages = {slot: value for slot, value in inputs.items() if isinstance(value, Tensor)}
        texts = {slot: value for slot, value in inputs.items() if not isinstance(value, Tensor)}
        scopes = [
            {**{name: sample[name] for name in self.plan.graph.inputs}}
            | {slot: text[row] for slot, text in texts.items()}
            for row, sample in enumerate(samples)
        ]
        room = step.latent_steps if isinstance(step, Rollout) else 1
        tools = tool_schemas(agent, self.system.tools) if agent.tool_style == "chat" else ()
        prompt = pack(backbone, agent, scopes, messages, room=room, tools=tools)
        if self.executor.reuses and not tools:
            prefix = find_prefix(
                self.plan, step, backbone, samples, walk.values, walk.prefixes, prompt.ids_BT
            )
            prompt = prompt._replace(prefix=prefix)
        return Turn(step, backbone, prompt)

    def _rollout(self, step: Rollout, turn: Turn) -> Tensor:
        given = self.roll(step, turn)
        if given is not None:
            return given
        inner = self.system.link(step.inner)
        return self.executor.rollout(turn.backbone, inner, turn.prompt, step.latent_steps)

    def _transfer(self, step: Transfer, walk: Walk) -> Tensor:
        states = walk.values[step.source]
        assert isinstance(states, Tensor)  # the plan's verifier has made sure
        message_BKD = self.system.link(step.outer).apply_to(
            self.system.link(step.inner).apply_to(states)
        )
        if self.edit_message is None:
            return message_BKD
        edited = self.edit_message(step.output, message_BKD)
        if edited.shape[0] != message_BKD.shape[0] or edited.shape[2] != message_BKD.shape[2]:
            found, wanted = tuple(edited.shape), tuple(message_BKD.shape)
            raise ValueError(
                f"edit_message made {found} of {step.output!r}, which has shape {wanted}"
            )
        return edited

    @torch.no_grad()
    def _decode(self, step: Decode, turn: Turn, first_row: int) -> list[list[Answer]]:
        """The answers of each sample."""
        count = self.num_return_sequences if step.final else 1

        def announce(row: int, token: int) -> None:
            sample, sequence = divmod(row, count)
            self.on_event(Token(first_row + sample, step.agent, token, sequence))

        answers = write(
            self.executor,
            turn.backbone,
            self.plan.graph.agent(step.agent),
            turn.prompt,
            times=count,
            sampling=self._sampling(step),
            streams=[
                self.sampling.stream(first_row + row, f"{step.agent}/{step.round}", sequence)
                for row in range(len(turn.prompt.x_BTD))
                for sequence in range(count)
            ],
            tools=self.system.tools,
            retry=self.retry if step.final else None,
            on_token=announce if step.final else None,
        )
        return [answers[start : start + count] for start in range(0, len(answers), count)]

    def _sampling(self, step: Decode) -> Sampling:
        """The run's, with the agent's own limit; stop strings are for the answer alone."""
        limit = self.sampling.max_new_tokens if step.max_new_tokens is None else step.max_new_tokens
        stop = self.sampling.stop if step.final else ()
        return replace(self.sampling, max_new_tokens=limit, stop=stop)


def _record(turn: Turn, *, latent_steps: int = 0, **written: int) -> TurnRecord:
    lengths = turn.prompt.lengths
    return TurnRecord(
        round=turn.step.round,
        agent=turn.step.agent,
        op=turn.step.op,
        samples=len(lengths),
        seconds=0.0,
        prompt_tokens=sum(lengths),
        latent_steps=latent_steps,
        **({"new_tokens": 0} | written),
    )


def _synchronise(device: torch.device) -> None:
    """Wait for the device, so that the seconds belong to the step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

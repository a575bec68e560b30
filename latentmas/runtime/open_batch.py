"""A batch that stays open: samples join and leave while others are being written.

`System.run` knows all its samples; a server does not. Each group of samples that joins has options
of its own, goes through its latent phase, and then writes beside the rows that are there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.engine import make_executor
from latentmas.errors import ExecutionError, LatentMASError
from latentmas.generation import Answer, GenerationBatch
from latentmas.plan import Decode, Plan, Rollout, RunOptions, Transfer, with_limits
from latentmas.runtime.flow import sample_end
from latentmas.runtime.interpreter import BatchState, Interpreter
from latentmas.runtime.observing.events import SampleEnd, Watcher
from latentmas.runtime.options import RunRequest, check_seeds, find_retry
from latentmas.runtime.run import judge_samples, make_interpreter
from latentmas.runtime.samples import Sample, read_samples

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["Finished", "JoinedSamples", "OpenBatch"]

_PLANS = 64
"""Maximum number of plans that are kept, one for each combination of rounds, steps and limits."""


@dataclass(frozen=True)
class Finished:
    """A sample whose answers are written."""

    end: SampleEnd
    """Its answers and what they cost."""
    chosen: int
    """Tokens of these answers that the output agent chose."""
    messages: Mapping[str, Tensor] = field(default_factory=dict)
    """`"round1.planner->critic"` → message_KD, with `record="messages"`."""
    states: Mapping[str, Tensor] = field(default_factory=dict)
    """`"round1.planner"` → raw states h_KD, with `record="states"`."""
    text_messages: Mapping[str, str] = field(default_factory=dict)
    """`"round1.planner.text"` → text that was sent along a text edge."""


@dataclass(eq=False)
class JoinedSamples:
    """Samples that joined together, with equal options."""

    interpreter: Interpreter
    options: RunOptions
    walk: BatchState
    cancelled: set[int] = field(default_factory=set)
    """Places of the samples that nobody waits for any more."""

    def cancel(self, place: int) -> None:
        """Stop writing for one of the samples; its rows leave the batch.

        Args:
            place: Its place among the samples that joined.
        """
        self.cancelled.add(place)
        if self.walk.draft is not None:
            self.walk.draft.cancel(place)

    def finished(self) -> dict[int, Finished]:
        """Samples whose answers have ended since this was last asked, by place."""
        assert self.walk.draft is not None
        ended = self.walk.draft.ended()
        return {i: self._finished(i, own) for i, own in ended.items() if i not in self.cancelled}

    def _finished(self, place: int, answers: Sequence[Answer]) -> Finished:
        plan, record = self.interpreter.plan, self.options.record
        final = plan.steps[-1].output
        return Finished(
            sample_end(self.walk, place, answers),
            sum(answer.chosen for answer in answers),
            messages=self._values(place, Transfer) if "messages" in record else {},
            states=self._values(place, Rollout) if "states" in record else {},
            text_messages={
                name: text for name, text in self._values(place, Decode).items() if name != final
            },
        )

    def _values(self, place: int, kind: type) -> dict[str, Any]:
        """What steps of a kind have made for a sample; tensors are on the CPU."""
        names = [s.output for s in self.interpreter.plan.steps if isinstance(s, kind)]
        values = {name: self.walk.values[name] for name in names if name in self.walk.values}
        return {
            name: value[place].cpu() if isinstance(value, Tensor) else value[place]
            for name, value in values.items()
        }


class OpenBatch:
    """Samples that run together though they arrive one by one; for one thread.

    Every sample has a seed of its own, so its answers equal those of
    `system.run([sample], seed=(seed,), …)`, whatever runs beside it.
    """

    def __init__(self, system: System, *, executor: str | None = None) -> None:
        """An empty batch.

        Args:
            system: Team that runs; nothing else may run it while `active`.
            executor: Name of the executor; None: the system's.

        Raises:
            UnknownNameError: The executor is unknown.
        """
        self._system, self._plans = system, dict[Any, Plan]()
        self._executor = make_executor(executor or system.executor, system.agent_backbones)
        self._pool: GenerationBatch | None = None
        self.joined: list[JoinedSamples] = []
        """Samples in progress, by the groups in which they joined."""

    @property
    def rows(self) -> int:
        """Rows that are being written."""
        return 0 if self._pool is None else self._pool.live

    def can_join(self) -> bool:
        """Whether samples may join now: always, if the backbone's states can be put together."""
        return self._pool is None or not self.joined or self._pool.can_merge()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Around a period in which samples run."""
        with torch.no_grad(), self._executor.running(self._system.links):
            try:
                yield
            finally:
                self.close()

    def check(self, samples: Sequence[Sample], options: RunOptions) -> dict[int, LatentMASError]:
        """Place of each sample that cannot be run → the reason.

        Raises:
            LatentMASError: The options do not fit this team.
        """
        plan = self._plan(options)
        rows, unread = read_samples(plan, samples)
        request = self._request(options.replace(on_error="keep"))
        return judge_samples(self._system, plan, rows, unread, request)

    def join(
        self, samples: Sequence[Mapping[str, Any]], options: RunOptions, on_event: Watcher
    ) -> JoinedSamples:
        """Run the latent phase of some samples; their answers are then written in this batch.

        Args:
            samples: Mappings of input fields, which `check` has found sound.
            options: Options of all of them, with one seed for each.
            on_event: Called with each event of these samples; they are numbered from 0.

        Raises:
            ExecutionError: A step failed. Groups that are no longer in `joined` are lost with it.
        """
        check_seeds(options, len(samples))
        plan, request = self._plan(options), self._request(options)
        interpreter = make_interpreter(self._system, plan, request, self._executor, on_event)
        last = plan.steps[-1]
        assert isinstance(last, Decode)
        if self._pool is None:
            self._pool = interpreter.pool(last)
        self._system.taps.begin()
        try:
            walk = interpreter.walk(samples, pool=self._pool)
        except ExecutionError as error:
            if error.step == len(plan.steps) - 1:  # it may have spoilt the pool
                self.close()
            raise
        walk.prefixes.clear()
        self.joined.append(JoinedSamples(interpreter, options, walk))
        return self.joined[-1]

    def advance(self) -> None:
        """Write a token of each row.

        Raises:
            ExecutionError: It failed; all groups are lost.
        """
        if self._pool is None or not self._pool.live:
            return
        interpreter = self.joined[0].interpreter
        try:
            with interpreter.annotate_errors(len(interpreter.plan.steps) - 1):
                self._executor.prepare(self._system.backbone_of(interpreter.plan.output))
                self._pool.advance()
        except ExecutionError:
            self.close()
            raise

    def finished(self) -> list[tuple[JoinedSamples, int, Finished]]:
        """Samples whose answers have ended since this was last asked, with group and place."""
        found = [
            (group, place, end) for group in self.joined for place, end in group.finished().items()
        ]
        self.joined = [g for g in self.joined if g.walk.draft is not None and not g.walk.draft.done]
        if not self.joined:
            self.close()
        return found

    def close(self) -> None:
        """Give up whatever is in progress."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self.joined = []

    def _plan(self, options: RunOptions) -> Plan:
        """The plan with the options' rounds, latent steps and limits."""
        limits = options.max_new_tokens
        own = tuple(sorted(limits.items())) if isinstance(limits, Mapping) else limits
        key = (options.rounds, options.latent_steps, own)
        if key not in self._plans:
            plan = self._system.plan
            if options.rounds is not None or options.latent_steps is not None:
                plan = plan.replace(rounds=options.rounds, latent_steps=options.latent_steps)
            if len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = with_limits(plan, options.max_new_tokens)
        return self._plans[key]

    def _request(self, options: RunOptions) -> RunRequest:
        return RunRequest(
            options=options.replace(executor=self._executor.name),
            executor=self._executor,
            retry=find_retry(options, {}),
            objects={},
        )

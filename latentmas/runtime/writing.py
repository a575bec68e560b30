"""A decode as a whole: budgets, stop strings, tools and retries around the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from latentmas.runtime.calling import CallSteering, ToolCall, call_steering
from latentmas.runtime.decoding import Pool, Writing, Written
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.steering import Retry, RetrySteering, Steering, StopStrings, Together
from latentmas.runtime.turns import Turn
from latentmas.spec import AgentSpec
from latentmas.tools import Tool

__all__ = ["Answer", "Draft"]


@dataclass(frozen=True)
class Answer:
    """What one row wrote."""

    ids: list[int]
    """Tokens, those that tools and a retry added among them, without the end token."""
    text: str
    chosen: int
    """Tokens that the agent chose itself."""
    calls: list[ToolCall]
    retried: bool


class Draft:
    """An agent's texts after a batch of prompts, in the making."""

    def __init__(
        self,
        turn: Turn,
        agent: AgentSpec,
        *,
        sampling: Sampling,
        times: int,
        streams: Sequence[str],
        tools: Mapping[str, Tool],
        retry: Retry | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> None:
        """Say what is to be written; `begin` begins.

        Args:
            turn: the agent's, with B prompts.
            agent: who writes; its tools are called.
            sampling: how tokens are chosen.
            times: texts after each prompt.
            streams: name of the random stream of each text.
            tools: by name.
            retry: for texts without an answer.
            on_token: called with (row, token id).
        """
        self.turn, self._times, backbone = turn, times, turn.backbone
        self._parts: list[Steering] = []
        if agent.tools:
            self._parts.append(call_steering(agent, tools, backbone))
        if sampling.stop:
            self._parts.append(StopStrings(backbone.tokenizer, sampling.stop))
        if retry is not None:
            self._parts.append(RetrySteering(backbone.tokenizer, retry))
        self._steering = Together(self._parts)
        most = backbone.planned.info.max_positions
        lengths = [length for length in turn.prompt.lengths for _ in range(times)]
        rooms = [None if most is None else most - length for length in lengths]
        self._writing = Writing(
            budgets=[sampling.max_new_tokens] * len(rooms),
            rooms=rooms,
            streams=streams,
            times=times,
            steering=self._steering,
            **({} if on_token is None else {"on_token": on_token}),
        )
        self._rows: list[Written] = []

    def begin(self, pool: Pool) -> None:
        """Read the prompts; the rows write as the pool advances."""
        self._rows = pool.add(self.turn.prompt, self._writing)

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        return not any(row.open for row in self._rows)

    @property
    def seconds(self) -> float:
        """The rows' share of the pool's time."""
        return sum(row.seconds for row in self._rows)

    def answers(self) -> list[list[Answer]]:
        """The texts of each prompt."""
        parts, step = self._parts, self.turn.step
        calls = next((part.calls for part in parts if isinstance(part, CallSteering)), {})
        retried = next((part.retried for part in parts if isinstance(part, RetrySteering)), set())
        answers = [
            Answer(
                ids=row.ids,
                text=self._steering.text(i, self._text(row.ids)),
                chosen=row.chosen,
                calls=[
                    replace(call, sequence=i % self._times, agent=step.agent, round=step.round)
                    for call in calls.get(i, [])
                ],
                retried=i in retried,
            )
            for i, row in enumerate(self._rows)
        ]
        return [answers[i : i + self._times] for i in range(0, len(answers), self._times)]

    def _text(self, ids: list[int]) -> str:
        return str(self.turn.backbone.tokenizer.decode(ids, skip_special_tokens=True))

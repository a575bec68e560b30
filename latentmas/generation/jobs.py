"""A decode as a whole: budgets, stop strings, tools and retries around the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from latentmas.engine import StepInput
from latentmas.generation.batch import GenerationBatch
from latentmas.generation.controllers import (
    ChainedControllers,
    GenerationController,
    Retry,
    RetryController,
    StopStrings,
)
from latentmas.generation.rows import FinishReason, GeneratedSequence, GenerationRequest
from latentmas.generation.sampling import Sampling
from latentmas.generation.tool_calls import ToolCall, ToolCallController, tool_call_controller
from latentmas.spec import AgentSpec
from latentmas.tools import Tool

__all__ = ["Answer", "DecodeJob"]


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
    finish: FinishReason
    """Why it ended."""


class DecodeJob:
    """An agent's texts after a batch of prompts, in the making."""

    def __init__(
        self,
        turn: StepInput,
        agent: AgentSpec,
        *,
        sampling: Sampling,
        num_return_sequences: int,
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
            num_return_sequences: texts after each prompt.
            streams: name of the random stream of each text.
            tools: by name.
            retry: for texts without an answer.
            on_token: called with (row, token id).
        """
        self.turn, self._num_return_sequences, backbone = turn, num_return_sequences, turn.backbone
        self._parts: list[GenerationController] = []
        if agent.tools:
            self._parts.append(tool_call_controller(agent, tools, backbone))
        if sampling.stop:
            self._parts.append(StopStrings(backbone.tokenizer, sampling.stop))
        if retry is not None:
            self._parts.append(RetryController(backbone.tokenizer, retry))
        self._controller = ChainedControllers(self._parts)
        most = backbone.planned.info.max_positions
        lengths = [length for length in turn.prompt.lengths for _ in range(num_return_sequences)]
        context_left = [None if most is None else most - length for length in lengths]
        self._writing = GenerationRequest(
            max_new_tokens=[sampling.max_new_tokens] * len(context_left),
            context_left=context_left,
            streams=streams,
            num_return_sequences=num_return_sequences,
            # Only what concerns a single token, so that rows with equal settings choose together.
            sampling=replace(sampling, seed=0, stop=(), max_new_tokens=1),
            controller=self._controller,
            **({} if on_token is None else {"on_token": on_token}),
        )
        self._rows: list[GeneratedSequence] = []
        self._answers: dict[int, list[Answer]] = {}

    def begin(self, pool: GenerationBatch) -> None:
        """Read the prompts; the rows write as the pool advances."""
        self._rows = pool.add(self.turn.prompt, self._writing)

    def cancel(self, prompt: int) -> None:
        """End the texts of a prompt; their rows leave the pool, and the others write on."""
        count = self._num_return_sequences
        for row in self._rows[prompt * count : (prompt + 1) * count]:
            row.end()

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        return not any(row.open for row in self._rows)

    def ended(self) -> dict[int, list[Answer]]:
        """Prompts all of whose texts have ended since this was last asked, and these texts."""
        rows, num_return_sequences = self._rows, self._num_return_sequences
        fresh = {
            i: self._read(range(i * num_return_sequences, (i + 1) * num_return_sequences))
            for i in range(len(rows) // num_return_sequences)
            if i not in self._answers
            and not any(
                row.open for row in rows[i * num_return_sequences : (i + 1) * num_return_sequences]
            )
        }
        self._answers |= fresh
        return fresh

    @property
    def seconds(self) -> float:
        """The rows' share of the pool's time."""
        return sum(row.seconds for row in self._rows)

    def answers(self) -> list[list[Answer]]:
        """The texts of each prompt; all have ended."""
        self.ended()
        return [self._answers[i] for i in sorted(self._answers)]

    def _read(self, numbers: Iterable[int]) -> list[Answer]:
        """What some rows have written."""
        parts, step = self._parts, self.turn.step
        tools = next((part for part in parts if isinstance(part, ToolCallController)), None)
        calls, limited = ({}, set()) if tools is None else (tools.calls, tools.limited)
        retried = next((part.retried for part in parts if isinstance(part, RetryController)), set())
        return [
            Answer(
                ids=self._rows[i].ids,
                text=self._controller.text(i, self._text(self._rows[i].ids)),
                chosen=self._rows[i].chosen,
                calls=[
                    replace(
                        call,
                        sequence=i % self._num_return_sequences,
                        agent=step.agent,
                        round=step.round,
                    )
                    for call in calls.get(i, [])
                ],
                retried=i in retried,
                finish="tool_limit" if i in limited else self._rows[i].finish,
            )
            for i in numbers
        ]

    def _text(self, ids: list[int]) -> str:
        return str(self.turn.backbone.tokenizer.decode(ids, skip_special_tokens=True))

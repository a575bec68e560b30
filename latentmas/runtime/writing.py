"""A decode as a whole: budgets, stop strings, tools and retries around the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentmas.backbones import LoadedBackbone
from latentmas.runtime.calling import CallSteering, ToolCall, call_steering
from latentmas.runtime.decoding import Writing
from latentmas.runtime.packing import Packed
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.steering import Retry, RetrySteering, Steering, StopStrings, Together
from latentmas.spec import AgentSpec
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.runtime.executors._base import Executor

__all__ = ["Answer", "write"]


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


def write(
    executor: Executor,
    backbone: LoadedBackbone,
    agent: AgentSpec,
    prompt: Packed,
    *,
    sampling: Sampling,
    times: int,
    streams: Sequence[str],
    tools: Mapping[str, Tool],
    retry: Retry | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Let an agent write after its prompts.

    Args:
        executor: runs the backbone.
        backbone: of the agent.
        agent: who writes; its tools are called.
        prompt: B rows.
        times: texts after each prompt.
        sampling: how tokens are chosen.
        streams: name of the random stream of each text.
        tools: by name.
        retry: for texts without an answer.
        on_token: called with (row, token id).

    Returns:
        B × times answers.
    """
    parts: list[Steering] = []
    if agent.tools:
        parts.append(call_steering(agent, tools, backbone))
    if sampling.stop:
        parts.append(StopStrings(backbone.tokenizer, sampling.stop))
    if retry is not None:
        parts.append(RetrySteering(backbone.tokenizer, retry))
    steering = Together(parts)
    most = backbone.planned.info.max_positions
    lengths = [length for length in prompt.lengths for _ in range(times)]
    rooms = [None if most is None else most - length for length in lengths]
    limit = sampling.max_new_tokens
    writing = Writing(
        sampling=sampling,
        budgets=[limit] * len(rooms),
        rooms=rooms,
        streams=streams,
        times=times,
        steering=steering,
        **({} if on_token is None else {"on_token": on_token}),
    )
    rows = executor.decode(backbone, prompt, writing)
    calls = next((part.calls for part in parts if isinstance(part, CallSteering)), {})
    retried = next((part.retried for part in parts if isinstance(part, RetrySteering)), set())
    return [
        Answer(
            ids=row.ids,
            text=steering.text(i, _text(backbone, row.ids)),
            chosen=row.chosen,
            calls=calls.get(i, []),
            retried=i in retried,
        )
        for i, row in enumerate(rows)
    ]


def _text(backbone: LoadedBackbone, ids: list[int]) -> str:
    return str(backbone.tokenizer.decode(ids, skip_special_tokens=True))

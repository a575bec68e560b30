"""The typed event stream of a run: progress bars, traces and callbacks all read this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentmas.engine import StepInput
    from latentmas.errors import LatentMASError
    from latentmas.generation import Answer, FinishReason, ToolCall

__all__ = [
    "Event",
    "RunBegin",
    "RunEnd",
    "SampleCost",
    "SampleEnd",
    "StepBegin",
    "StepEnd",
    "Token",
    "StepRecord",
    "Watcher",
    "step_record",
    "written_record",
]


@dataclass(frozen=True)
class StepRecord:
    """What one model step of one batch cost."""

    round: int
    agent: str
    op: str
    """`rollout` or `decode`."""
    samples: int
    seconds: float
    prompt_tokens: int
    """Real prompt positions of all samples, spliced messages included."""
    latent_steps: int
    """Latent steps of all samples."""
    new_tokens: int
    """Tokens written for all samples."""
    tool_calls: int = 0
    """Calls of tools, for all samples."""
    added_tokens: int = 0
    """Tokens that tools or a retry added to what was written."""


@dataclass
class SampleCost:
    """What one sample cost, all agents and answers added up."""

    prompt_tokens: int = 0
    """Prompt positions, including the rows of messages."""
    latent_steps: int = 0
    new_tokens: int = 0
    """Tokens that agents chose, on text edges too."""


@dataclass(frozen=True)
class RunBegin:
    """A run starts."""

    samples: int
    steps: int
    """Steps of the plan, which each sample goes through."""


@dataclass(frozen=True)
class StepBegin:
    """A step starts. The last step of a batch may end after others of the next have begun."""

    batch: int
    step: int
    op: str
    agent: str
    round: int


@dataclass(frozen=True)
class StepEnd:
    """A step has ended."""

    batch: int
    step: int
    op: str
    agent: str
    round: int
    seconds: float
    record: StepRecord | None
    """None for transfers."""
    samples: int
    """How many have gone through it."""


@dataclass(frozen=True)
class Token:
    """The output agent wrote a token, or was given one by a tool or a retry."""

    sample: int
    agent: str
    token_id: int
    sequence: int = 0
    """Which of the sample's answers it belongs to."""


@dataclass(frozen=True)
class SampleEnd:
    """All answers of a sample are written, or it has failed for good."""

    sample: int
    """Its number in the run."""
    texts: tuple[str, ...] = ()
    """Its answers; none where it has failed."""
    token_ids: tuple[tuple[int, ...], ...] = ()
    """Their tokens."""
    finish_reasons: tuple[FinishReason, ...] = ()
    """Why each answer ended, as in `RunResult.finish_reasons`."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls of all agents."""
    cost: SampleCost = field(default_factory=SampleCost)
    """Tokens and latent steps of all agents."""
    prompt_ids: tuple[int, ...] = ()
    """Token ids of the output agent's prompt; negative where a message's rows stand."""
    error: LatentMASError | None = None
    """Why it has no answer; with `on_error="keep"`."""


@dataclass(frozen=True)
class RunEnd:
    """A run has ended, whole or by an exception."""

    seconds: float
    error: str | None


Event = RunBegin | StepBegin | StepEnd | Token | SampleEnd | RunEnd
Watcher = Callable[[Event], None]
"""Whoever wants events: `system.run(..., on_event=watcher)`."""


def step_record(turn: StepInput, *, latent_steps: int = 0, **written: int) -> StepRecord:
    """What a model step has cost; its seconds are filled in when it ends."""
    lengths = turn.prompt.lengths
    return StepRecord(
        round=turn.step.round,
        agent=turn.step.agent,
        op=turn.step.op,
        samples=len(lengths),
        seconds=0.0,
        prompt_tokens=sum(lengths),
        latent_steps=latent_steps,
        **({"new_tokens": 0} | written),
    )


def written_record(turn: StepInput, written: Sequence[Answer]) -> StepRecord:
    """What a model step that wrote texts has cost."""
    return step_record(
        turn,
        new_tokens=sum(answer.chosen for answer in written),
        tool_calls=sum(len(answer.calls) for answer in written),
        added_tokens=sum(len(answer.ids) - answer.chosen for answer in written),
    )

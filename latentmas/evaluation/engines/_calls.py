"""What passes between an evaluation and its workers: calls one way, replies the other.

Calls are pickled, since samples are Python values; replies are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from latentmas.errors import DataError, LatentMASError, PlanError, WeightsError
from latentmas.evaluation.runner import CHUNK, Work
from latentmas.redact import get_logger
from latentmas.runtime import SampleCost, SampleEnd, ToolCall

__all__ = ["Call", "Failure", "Ledger", "Reply", "make_calls", "take_replies", "task_size"]

TASKS_PER_WORKER = 4
"""Number of tasks to aim at for each worker, so that all end at about the same time."""
_PLAIN = {kind.__name__: kind for kind in (DataError, PlanError, WeightsError)}
"""Errors that a message alone can make, by name."""
log = get_logger("latentmas.evaluation")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of `System.run`."""

    number: int
    """Number of the task in this evaluation."""
    job: str
    rows: Sequence[int]
    samples: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """Why a task has not been finished."""

    kind: str
    """Name of the exception's class."""
    message: str
    trace: str = ""
    ours: bool = False
    """Whether it is one of `latentmas.errors`."""
    lost: bool = False
    """Whether its workers died, without an exception."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker has to say about a task."""

    number: int
    job: str
    rows: Sequence[int] = ()
    """Rows of the task."""
    worker: str = ""
    """Machine and process."""
    attempt: int = 1
    ended: list[dict[str, Any]] = field(default_factory=list)
    """Rows that have ended, as `add` writes them."""
    failure: Failure | None = None

    def add(self, row: int, end: SampleEnd, seconds: float) -> None:
        """Write down the end of a row."""
        error = None if end.error is None else str(end.error)
        told = asdict(replace(end, error=None)) | {"error": error}
        self.ended.append({"row": row, "seconds": seconds, "end": told})

    def ends(self) -> Iterator[tuple[int, SampleEnd, float]]:
        """Number, end and seconds of each row that has ended."""
        for one in self.ended:
            yield one["row"], _end(one["end"]), one["seconds"]

    def to_json(self) -> str:
        """JSON text, from which `from_json` restores an equal reply."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Reply:
        """Restore a reply."""
        told = json.loads(text)
        failure = told.pop("failure")
        return cls(**told, failure=None if failure is None else Failure(**failure))


def _end(told: Mapping[str, Any]) -> SampleEnd:
    return SampleEnd(
        sample=told["sample"],
        texts=tuple(told["texts"]),
        token_ids=tuple(map(tuple, told["token_ids"])),
        finish_reasons=tuple(told["finish_reasons"]),
        tool_calls=tuple(ToolCall(**call) for call in told["tool_calls"]),
        cost=SampleCost(**told["cost"]),
        prompt_ids=tuple(told["prompt_ids"]),
        error=None if told["error"] is None else DataError(told["error"]),
    )


def task_size(batches: int, workers: int) -> int:
    """Number of batches in a task: few enough for every worker to have several tasks.

    Args:
        batches: number of batches to run.
        workers: number of workers.
    """
    return min(CHUNK, max(1, batches // (TASKS_PER_WORKER * workers)))


def make_calls(works: Sequence[Work], at_most: int) -> Iterator[Call]:
    """The tasks of some jobs, numbered through.

    Args:
        works: the jobs.
        at_most: maximum number of batches in a task.
    """
    number = 0
    for work in works:
        for task in work.tasks(at_most):
            yield Call(
                number=number,
                job=work.job.name,
                rows=task,
                samples=[work.sample(row) for row in task],
                options=dict(work.options_of(task)),
            )
            number += 1


def take_replies(replies: Iterator[str], works: Sequence[Work]) -> None:
    """Take the rows of all replies, as they come.

    Args:
        replies: replies as JSON, in any order; one may come twice.
        works: the jobs.

    Raises:
        LatentMASError: a worker has failed; the rows that it had finished are taken first.
    """
    by_name = {work.job.name: work for work in works}
    for text in replies:
        reply = Reply.from_json(text)
        work = by_name[reply.job]
        if reply.attempt > 1 and not (reply.failure and reply.failure.lost):
            log.warning(
                "%d rows of %s have run again, since a worker was lost (attempt %d)",
                *(len(reply.rows), reply.job, reply.attempt),
            )
        for row, end, seconds in reply.ends():
            work.take(row, end, seconds)
        if reply.failure is not None:
            _fail(work, reply, reply.failure)
        work.writer.settle()


def _fail(work: Work, reply: Reply, failure: Failure) -> None:
    """Raise the error of a worker; or keep it for each row, if it is only that workers died."""
    error = _error(failure, reply.worker)
    if not failure.lost or work.options.on_error == "raise":
        raise error
    for row in reply.rows:
        work.take(row, SampleEnd(row, error=error), 0.0)


def _error(failure: Failure, worker: str) -> LatentMASError:
    """The error of a worker, of the class that it had there if a message alone can make it."""
    if failure.ours or failure.lost:
        error = _PLAIN.get(failure.kind, LatentMASError)(failure.message)
    else:
        error = LatentMASError(f"{failure.kind}: {failure.message} (on worker {worker})")
    if failure.trace:
        error.add_note(f"Traceback of worker {worker}:\n{failure.trace}")
    return error


class Ledger:
    """Counts how often each task has been begun, so that one that kills its workers is given up."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Note that a task begins; the number of times that it has."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]

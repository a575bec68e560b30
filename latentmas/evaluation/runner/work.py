"""The work of an evaluation: which rows a job lacks, cut into tasks, and where their ends go.

An engine runs the tasks, here or elsewhere. Tasks consist of the batches that one process would
make, in its order, so that it does not matter to a row which engine runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.runner.job import Job, Rows
from latentmas.evaluation.runner.records import seed_of_row
from latentmas.evaluation.runner.relay import Lap, Relay
from latentmas.evaluation.runner.writer import Writer
from latentmas.plan import RunOptions
from latentmas.runtime import Event, RunResult, SampleEnd, System, Watcher, bad_samples, by_length

__all__ = ["CHUNK", "Work", "as_one_run"]

CHUNK = 8
"""Maximum number of batches in one task, which is one call of `System.run`; it bounds memory."""


@dataclass(kw_only=True)
class Work:
    """Rows of one job that an engine is to run; each is taken once, however often it comes."""

    job: Job
    """System that runs, and the keys of its rows."""
    rows: Rows
    """All rows of the evaluation."""
    options: RunOptions
    """Options of `System.run`."""
    objects: Mapping[str, Any]
    """Further arguments of `System.run`."""
    missing: Sequence[int]
    """Rows that the results lack."""
    refused: Mapping[int, LatentMASError]
    """Those of them that cannot run."""
    writer: Writer
    """Takes finished rows, grades them and keeps them."""
    watchers: Sequence[Watcher] = ()
    """Called with each event of the runs."""
    manifest: Any = None
    """Manifest of a whole run."""
    result: RunResult | None = None
    """The run of a whole job."""
    _relay: Relay | None = None
    _open: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._open = set(self.missing)

    @property
    def batch_count(self) -> int:
        """Number of batches to run."""
        return sum(len(batches) for batches in self._windows())

    def tasks(self, at_most: int = CHUNK) -> Iterator[tuple[int, ...]]:
        """Rows for one call of `System.run` each.

        Args:
            at_most: maximum number of batches in a task.
        """
        if self.job.whole:
            yield tuple(self.rows.numbers)
            return
        for batches in self._windows():
            for begin in range(0, len(batches), at_most):
                yield tuple(n for batch in batches[begin : begin + at_most] for n in batch)

    def _windows(self) -> Iterator[list[list[int]]]:
        """Batches to run; those that may share a call are listed together."""
        size, wanted = self.options.batch_size, set(self.missing)
        if self.job.group:
            for batch in self.rows.groups:
                runs = [n for n in batch if n not in self.refused]
                if runs and wanted.intersection(runs):
                    yield [runs]
            return
        inputs = self.job.system.plan.graph.inputs
        runs = [n for n in self.rows.numbers if n not in self.refused]
        samples = [self.sample(n) for n in range(len(self.rows.samples))]
        for begin in range(0, len(runs), size * CHUNK):
            chunk = by_length(samples, inputs, runs[begin : begin + size * CHUNK])
            batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            left = [batch for batch in batches if wanted.intersection(batch)]
            # In half precision, rounding depends on the rows of a batch: after an interruption, a
            # batch runs again as a whole, so that a resumed evaluation equals one that was not.
            yield from [left] if len(left) == len(batches) else ([batch] for batch in left)

    def sample(self, number: int) -> Mapping[str, Any]:
        """A row with the further inputs of the job."""
        return {**self.rows.samples[number], **self.job.inputs}

    def options_of(self, task: Sequence[int]) -> RunOptions:
        """Options of `System.run` for a task."""
        options = self.options.replace(
            seed=self._seeds(task), max_new_tokens=_own_limits(self.options, self.job.system)
        )
        return options.replace(batch_size=len(task)) if self.job.group else options

    def run_here(self, task: Sequence[int]) -> None:
        """Run a task in this process, and take its rows."""
        assert self._relay is not None
        relay, clock = self._relay, Lap()

        def watch(event: Event) -> None:
            if isinstance(event, SampleEnd):
                self._take(task[event.sample], event, clock.lap())
            relay.tell(event)

        result = self.job.system.run(
            [self.sample(number) for number in task],
            options=self.options_of(task),
            on_event=watch,
            edit_message=self.job.edit,
            manifest=self.manifest,
            **self.objects,
        )
        relay.chunk_ends(len(task))
        self.writer.settle()
        if self.job.whole:
            self.result = result

    def take(self, number: int, end: SampleEnd, seconds: float) -> None:
        """Take a row that has ended elsewhere: grade it and keep it."""
        assert self._relay is not None
        if self._take(number, end, seconds):
            self._relay.row_ends(end)

    def _take(self, number: int, end: SampleEnd, seconds: float) -> bool:
        """Whether the row was wanted."""
        if number not in self._open:
            return False
        self._open.remove(number)
        self.writer.take(number, end, seconds)
        return True

    def begin(self, relay: Relay) -> None:
        """Take the rows that cannot run."""
        self._relay = relay
        for number, error in self.refused.items():
            self.take(number, SampleEnd(number, error=error), 0.0)

    def end(self) -> None:
        """Check that all rows have been taken.

        Raises:
            DataError: rows have failed, and errors are not kept.
            LatentMASError: rows are missing.
        """
        self.writer.settle()
        if self.writer.failed and self.options.on_error == "raise":
            raise bad_samples(self.writer.failed, len(self.rows.samples))
        if self._open:
            first = min(self._open)
            raise LatentMASError(
                f"the engine has ended without {len(self._open)} rows of {self.job.name} (row "
                f"{first} is one); continue with resume"
            )

    def _seeds(self, task: Sequence[int]) -> int | tuple[int, ...]:
        """A seed for each row, which does not depend on the rows beside it."""
        seed = self.options.seed
        if not self.options.do_sample:
            return seed if isinstance(seed, int) else 0
        if isinstance(seed, tuple):
            return tuple(seed[number] for number in task)
        return tuple(seed_of_row(seed, self.rows.names[number]) for number in task)


@contextmanager
def as_one_run(works: Sequence[Work], *, steps: int = 1) -> Iterator[None]:
    """Around the rows of some jobs: one run to the watchers.

    Args:
        works: the jobs.
        steps: number of steps of a row; 1 if only the ends of rows are known.

    Raises:
        DataError: as for `Work.end`.
    """
    relay = Relay(works[0].watchers, sum(len(work.missing) for work in works), steps)
    try:
        try:
            for work in works:
                work.begin(relay)
            yield
        finally:
            for work in works:
                work.writer.close()
        for work in works:
            work.end()
    except BaseException as error:
        relay.end(str(error) or repr(error))
        raise
    relay.end(None)


def _own_limits(options: RunOptions, system: System) -> int | dict[str, int] | None:
    """Limits of tokens, without those for agents that a control does not have."""
    limits = options.max_new_tokens
    if not isinstance(limits, dict):
        return limits
    agents = {agent.name for agent in system.plan.graph.agents}
    return {name: limit for name, limit in limits.items() if name in agents} or None

"""Run one system over rows: what is finished is kept, and what is kept is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.graders import Grade, Grader
from latentmas.evaluation.runner.records import Answer, RowRecord, seed_of_row
from latentmas.evaluation.runner.results import Results
from latentmas.plan import RunOptions
from latentmas.runtime import (
    Event,
    RunBegin,
    RunEnd,
    RunResult,
    SampleEnd,
    StepBegin,
    StepEnd,
    System,
    Token,
    Watcher,
    bad_samples,
    by_length,
)

__all__ = ["Job", "Rows", "Runner"]

GRADING_THREADS = 4
"""Number of rows that are graded at the same time, while others are generated."""
CHUNK = 8
"""Number of batches in one call of `System.run`; it bounds memory."""


@dataclass(frozen=True)
class Rows:
    """The rows of an evaluation: samples with their correct answers."""

    samples: Sequence[Mapping[str, Any]]
    gold: Sequence[Any]
    names: Sequence[str]
    """Digest of each sample, with its count among equal ones."""
    errors: Mapping[int, LatentMASError]
    """Rows that cannot be graded, and why."""
    numbers: Sequence[int]
    """Rows to run: all of them, or those of a shard."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One system to evaluate."""

    name: str
    system: System
    keys: Sequence[str]
    """Key of each row."""
    edit: Callable[[str, Any], Any] | None = None
    """Replaces messages, for a control."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Further inputs of the system's graph, the same for all rows."""
    group: bool = False
    """Whether rows depend on the others of their batch, so that batches must not change."""
    whole: bool = False
    """All rows in one run, for a manifest or a report."""


@dataclass(kw_only=True)
class Runner:
    """Runs jobs over the same rows with the same options."""

    rows: Rows
    grader: Grader
    results: Results
    options: RunOptions
    objects: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `System.run`."""
    watchers: Sequence[Watcher] = ()
    """Functions of events; each job is one run to them."""
    _writer: _Writer | None = None

    def settle(self) -> None:
        """Wait for the rows that are being graded."""
        if self._writer is not None:
            self._writer.settle()

    def run(self, job: Job, *, manifest: Any = None) -> RunResult | None:
        """Run the rows that the results lack, and add them.

        Args:
            job: the system.
            manifest: manifest of a whole run.

        Returns:
            The run, if the job is whole.

        Raises:
            DataError: rows cannot be run; the error lists all of them. With `on_error="keep"`,
                they are added with their errors instead.
        """
        missing = [n for n in self.rows.numbers if self.results.key(job.name, n) != job.keys[n]]
        if not missing:
            return None
        missing = list(self.rows.numbers) if job.whole else missing
        relay = _Relay(self.watchers, len(missing), len(job.system.plan.steps))
        result = None
        with ThreadPoolExecutor(GRADING_THREADS, thread_name_prefix="grading") as threads:
            writer = _Writer(job, self.rows, self.grader, self.results, threads)
            self._writer = writer
            try:
                refused = {} if job.whole else self._refused(job, missing)
                for number, error in refused.items():
                    end = SampleEnd(number, error=error)
                    writer.take(number, end, 0.0)
                    relay.tell(end)
                for chunk in self._chunks(job, missing, refused):
                    result = self._run_chunk(job, chunk, writer, relay, manifest)
                    writer.settle()
            except BaseException as error:
                relay.end(str(error) or repr(error))
                raise
            finally:
                writer.settle()
        relay.end(None)
        return result if job.whole else None

    def _refused(self, job: Job, missing: Sequence[int]) -> dict[int, LatentMASError]:
        """Rows that are known not to run; raised, unless errors are kept."""
        samples = [self._sample(job, number) for number in range(len(self.rows.samples))]
        known = job.system.check(
            samples, rounds=self.options.rounds, latent_steps=self.options.latent_steps
        )
        errors = {n: known[n] for n in missing if n in known} | {
            n: self.rows.errors[n] for n in missing if n in self.rows.errors
        }
        if errors and self.options.on_error == "raise":
            raise bad_samples(errors, len(samples))
        return dict(sorted(errors.items()))

    def _chunks(
        self, job: Job, missing: Sequence[int], refused: Mapping[int, Any]
    ) -> Iterator[list[int]]:
        """Rows that go into one call of `System.run`."""
        if job.whole:
            yield list(self.rows.numbers)
            return
        size = self.options.batch_size
        if job.group:
            wanted = set(missing)
            for batch in even_batches(list(self.rows.numbers), size):
                if wanted.intersection(batch):
                    yield [n for n in batch if n not in refused]
            return
        wanted, inputs = set(missing), job.system.plan.graph.inputs
        runs = [n for n in self.rows.numbers if n not in refused]
        samples = [self._sample(job, n) for n in range(len(self.rows.samples))]
        for begin in range(0, len(runs), size * CHUNK):
            chunk = by_length(samples, inputs, runs[begin : begin + size * CHUNK])
            batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            left = [batch for batch in batches if wanted.intersection(batch)]
            # In half precision, rounding depends on the rows of a batch: after an interruption, a
            # batch runs again as a whole, so that a resumed evaluation equals one that was not.
            yield from [chunk] if len(left) == len(batches) else left

    def _run_chunk(
        self, job: Job, chunk: Sequence[int], writer: _Writer, relay: _Relay, manifest: Any
    ) -> RunResult:
        clock = _Lap()

        def watch(event: Event) -> None:
            if isinstance(event, SampleEnd):
                number = chunk[event.sample]
                if job.whole or self.results.key(job.name, number) != job.keys[number]:
                    writer.take(number, event, clock.lap())
            relay.tell(event)

        options = self.options.replace(
            seed=self._seeds(chunk), max_new_tokens=_own_limits(self.options, job.system)
        )
        if job.group:
            options = options.replace(batch_size=len(chunk))
        result = job.system.run(
            [self._sample(job, number) for number in chunk],
            options=options,
            on_event=watch,
            edit_message=job.edit,
            manifest=manifest,
            **self.objects,
        )
        relay.chunk_ends(len(chunk))
        return result

    def _sample(self, job: Job, number: int) -> Mapping[str, Any]:
        return {**self.rows.samples[number], **job.inputs}

    def _seeds(self, chunk: Sequence[int]) -> int | tuple[int, ...]:
        """A seed for each row, which does not depend on the rows beside it."""
        seed = self.options.seed
        if not self.options.do_sample:
            return seed if isinstance(seed, int) else 0
        if isinstance(seed, tuple):
            return tuple(seed[number] for number in chunk)
        return tuple(seed_of_row(seed, self.rows.names[number]) for number in chunk)


class _Writer:
    """Turns ends of samples into graded rows, in threads."""

    def __init__(
        self, job: Job, rows: Rows, grader: Grader, results: Results, threads: ThreadPoolExecutor
    ) -> None:
        self._job, self._rows, self._grader, self._results = job, rows, grader, results
        self._threads, self._open = threads, list[Future[None]]()
        self._tokenizer = job.system.backbone_of(job.system.plan.output).tokenizer

    def take(self, number: int, end: SampleEnd, seconds: float) -> None:
        """Grade and keep a row; an error is kept in its place."""
        self._open.append(self._threads.submit(self._keep, number, end, seconds))

    def settle(self) -> None:
        """Wait for the rows that are being graded."""
        open_, self._open = self._open, []
        for one in open_:
            one.result()

    def _keep(self, number: int, end: SampleEnd, seconds: float) -> None:
        error = None if end.error is None else str(end.error)
        answers: tuple[Answer, ...] = ()
        if error is None and number in self._rows.errors:
            error = str(self._rows.errors[number])
        if error is None:
            try:
                answers = self._graded(number, end)
            except Exception as broken:  # a grader may be the caller's own code
                told = f"{type(broken).__name__}: {broken}"
                error = f"sample {number}: grader {self._grader.name!r} failed: {told}"
        self._results.add(
            RowRecord(
                system=self._job.name,
                row=number,
                key=self._job.keys[number],
                sample=self._rows.samples[number],
                gold=self._rows.gold[number],
                prompt=_shown(end.prompt_ids, self._tokenizer),
                answers=answers,
                prompt_tokens=end.cost.prompt_tokens,
                latent_steps=end.cost.latent_steps,
                new_tokens=end.cost.new_tokens,
                seconds=round(seconds, 4),
                grader=self._grader.name,
                tool_calls=tuple(asdict(call) for call in end.tool_calls),
                error=error,
            )
        )

    def _graded(self, number: int, end: SampleEnd) -> tuple[Answer, ...]:
        gold, sample = self._rows.gold[number], self._rows.samples[number]
        grades = [self._grader.grade(text, gold, sample) for text in end.texts]
        return tuple(
            Answer(
                text=text,
                answer=grade.answer,
                right=bool(grade.right),
                score=grade.score,
                reason=grade.reason,
                finish_reason=finish,
                new_tokens=len(ids),
                token_ids=ids,
                group=self._group(grades, i),
            )
            for i, (text, grade, ids, finish) in enumerate(
                zip(end.texts, grades, end.token_ids, end.finish_reasons, strict=True)
            )
        )

    def _group(self, grades: Sequence[Grade], number: int) -> int:
        """Number of the first answer that says the same; its own without one."""
        found = self._grader.vote(grades[number], list(grades[:number])) if number else None
        return number if found is None else found


class _Relay:
    """Passes events of several runs on as those of one."""

    def __init__(self, watchers: Sequence[Watcher], samples: int, steps: int) -> None:
        self._watchers, self._begun, self._done = watchers, time.perf_counter(), 0
        self._batches = self._newest = 0
        self._say(RunBegin(samples, steps))

    def tell(self, event: Event) -> None:
        """Pass an event on, numbered through."""
        if isinstance(event, StepBegin | StepEnd):
            self._newest = max(self._newest, event.batch + 1)
            self._say(replace(event, batch=event.batch + self._batches))
        elif isinstance(event, SampleEnd | Token):
            self._say(replace(event, sample=event.sample + self._done))

    def chunk_ends(self, rows: int) -> None:
        """Number what follows after the rows and batches of a chunk."""
        self._done += rows
        self._batches, self._newest = self._batches + self._newest, 0

    def end(self, error: str | None) -> None:
        """Tell that all is over."""
        self._say(RunEnd(time.perf_counter() - self._begun, error))

    def _say(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher(event)


class _Lap:
    """Time between two calls."""

    def __init__(self) -> None:
        self._then = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call, or since the clock was made."""
        then, self._then = self._then, time.perf_counter()
        return self._then - then


def _own_limits(options: RunOptions, system: System) -> int | dict[str, int] | None:
    """Limits of tokens, without those for agents that a control does not have."""
    limits = options.max_new_tokens
    if not isinstance(limits, dict):
        return limits
    agents = {agent.name for agent in system.plan.graph.agents}
    return {name: limit for name, limit in limits.items() if name in agents} or None


def even_batches(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Rows in batches of nearly equal sizes: about `size`, and at least two.

    Raises:
        DataError: there is one row alone.
    """
    if len(numbers) < 2:
        raise DataError(
            f"{len(numbers)} row cannot be given the message of another; evaluate at least two "
            "rows, or leave out the control shuffled"
        )
    count = min(-(-len(numbers) // max(2, size)), len(numbers) // 2)
    small, more = divmod(len(numbers), count)
    batches, begin = [], 0
    for i in range(count):
        end = begin + small + (i < more)
        batches.append(list(numbers[begin:end]))
        begin = end
    return batches


def _shown(ids: Sequence[int], tokenizer: Any) -> str:
    """A prompt as text, with messages by their number of rows."""
    parts = []
    for is_text, group in groupby(ids, lambda token: token >= 0):
        own = list(group)
        parts.append(tokenizer.decode(own) if is_text else f"<message: {len(own)} rows>")
    return "".join(parts)

"""Progress of runs on stderr: a bar where there is a terminal, elsewhere lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from latentmas.cli.support.console import note, stderr_console

if TYPE_CHECKING:
    from latentmas.runtime import Event, Watcher

__all__ = ["progress_bar", "run_progress"]

AT_MOST = 0.2
"""Seconds between two counts of tokens on a bar."""
EVERY = 15.0
"""Minimum number of seconds between lines without a terminal."""


class _Rate(ProgressColumn):
    """How many are done in a second, or how many seconds one takes."""

    def render(self, task: Task) -> Text:
        """Nothing before the first is done."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """A bar on stderr, gone at the end; hidden when quiet or without a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=stderr_console(), transient=True, disable=hidden) as bar:
        yield bar


@contextmanager
def run_progress(*, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher for `system.run(on_event=…)` that shows how far the run is, unless quiet.

    On a terminal it draws a bar, which moves whenever a step or a row ends; elsewhere it writes a
    line from time to time.
    """
    with progress_bar(quiet=quiet) as bar:
        yield _Bar(bar) if quiet or sys.stderr.isatty() else _Lines()


class _Bar:
    """The steps of all rows; the last step of each row counts when its text has ended."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("start", total=None)
        self._steps, self._tokens, self._where, self._shown = 1, 0, "", 0.0

    def __call__(self, event: Event) -> None:
        from latentmas.runtime import RunBegin, SampleEnd, StepBegin, StepEnd, Token

        if isinstance(event, Token):
            self._tokens += 1
            self._say(every=AT_MOST)
        elif isinstance(event, RunBegin):
            self._steps, self._tokens = event.steps, 0
            self._bar.reset(self._task, total=event.samples * event.steps)
        elif isinstance(event, StepBegin):
            self._where = f"batch {event.batch + 1} round {event.round} {event.agent} {event.op}"
            self._say()
        elif isinstance(event, SampleEnd):
            self._bar.advance(self._task, 1 if event.error is None else self._steps)
        elif isinstance(event, StepEnd) and event.step < self._steps - 1:
            self._bar.advance(self._task, event.samples)

    def _say(self, *, every: float = 0.0) -> None:
        """Where the run is; there may be many tokens in a second."""
        now = time.monotonic()
        if now - self._shown >= every:
            tokens = f", {self._tokens} tokens" if self._tokens else ""
            self._bar.update(self._task, description=self._where + tokens)
            self._shown = now


class _Lines:
    """How many rows are finished, for logs: nothing about a run that is soon over."""

    def __init__(self) -> None:
        self._begun = self._said = time.monotonic()
        self._rows, self._done, self._failed, self._tokens = 0, 0, 0, 0

    def __call__(self, event: Event) -> None:
        from latentmas.runtime import RunBegin, SampleEnd, StepEnd, Token

        if isinstance(event, Token):
            self._tokens += 1
        elif isinstance(event, RunBegin):
            self._begun = self._said = time.monotonic()
            self._rows, self._done, self._failed, self._tokens = event.samples, 0, 0, 0
        elif isinstance(event, SampleEnd):
            self._done += 1
            self._failed += event.error is not None
        if isinstance(event, SampleEnd | StepEnd | Token):
            self._say()

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said >= EVERY:
            failed = f" ({self._failed} failed)" if self._failed else ""
            done = f"{self._done} of {self._rows} rows finished{failed}"
            note(f"{done}, {self._tokens} answer tokens, {now - self._begun:.0f} s")
            self._said = now

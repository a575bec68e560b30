"""Events of several runs, passed on to watchers as those of one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from latentmas.runtime import Event, RunBegin, RunEnd, SampleEnd, StepBegin, StepEnd, Token, Watcher

__all__ = ["Lap", "Relay"]


class Relay:
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

    def row_ends(self, end: SampleEnd) -> None:
        """Pass on the end of a row that has run elsewhere; rows are counted as they end."""
        self._say(replace(end, sample=self._done))
        self._done += 1

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


class Lap:
    """Time between two calls."""

    def __init__(self) -> None:
        self._then = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call, or since the clock was made."""
        then, self._then = self._then, time.perf_counter()
        return self._then - then

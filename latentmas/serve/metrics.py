"""What a server has done, in the text format of Prometheus."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator

from latentmas.runtime import Finished

__all__ = ["CONTENT_TYPE", "EngineMetrics", "HttpMetrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OUTCOMES = ("finished", "failed", "cancelled", "expired")


class Histogram:
    """Durations, counted by upper bound."""

    def __init__(self) -> None:
        self._counts, self._sum = [0] * (len(_SECONDS) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """The histogram's samples."""
        total = 0
        for bound, count in zip(_SECONDS, self._counts, strict=False):
            total += count
            yield f'{name}_bucket{{le="{bound:g}"}} {total}'
        total += self._counts[-1]
        yield from (
            f'{name}_bucket{{le="+Inf"}} {total}',
            f"{name}_sum {self._sum:.6f}",
            f"{name}_count {total}",
        )


class EngineMetrics:
    """Counts of an engine. Written by its thread, read by others."""

    def __init__(self, now: Callable[[], tuple[int, int, int]]) -> None:
        """Zero.

        Args:
            now: Returns the number of waiting prompts, of prompts in progress, and of rows that
                are being written.
        """
        self._now, self._lock = now, threading.Lock()
        self._outcomes, self._totals = Counter[str](dict.fromkeys(OUTCOMES, 0)), Counter[str]()
        self._total, self._first = Histogram(), Histogram()

    def left(self, outcome: str) -> None:
        """A prompt has left the engine."""
        with self._lock:
            self._outcomes[outcome] += 1

    def stepped(self, rows: int) -> None:
        """A token of each of some rows was written."""
        with self._lock:
            self._totals.update({"steps": 1, "row_steps": rows})

    def finished(self, finished: Finished, arrived: float, first: float | None) -> None:
        """A prompt was answered; times are those of `time.monotonic`."""
        cost = finished.end.cost
        with self._lock:
            self._totals.update(
                prompt_tokens=cost.prompt_tokens,
                completion_tokens=cost.new_tokens,
                latent_steps=cost.latent_steps,
            )
            self._total.observe(time.monotonic() - arrived)
            if first is not None:
                self._first.observe(first - arrived)

    def lines(self) -> Iterator[str]:
        """All samples, in Prometheus' text format."""
        waiting, running, rows = self._now()
        with self._lock:
            yield from _family("prompts_total", "counter", "Prompts that have left the engine.")
            for name, count in sorted(self._outcomes.items()):
                yield f'latentmas_prompts_total{{outcome="{name}"}} {count}'
            for name, text in _TOTALS.items():
                yield from _family(f"{name}_total", "counter", text)
                yield f"latentmas_{name}_total {self._totals[name]}"
            gauges = {"waiting": waiting, "running": running}
            yield from _family("prompts", "gauge", "Prompts in the engine.")
            for name, count in gauges.items():
                yield f'latentmas_prompts{{state="{name}"}} {count}'
            yield from _family("rows", "gauge", "Answers that are being written.")
            yield f"latentmas_rows {rows}"
            yield from _family("request_seconds", "histogram", "Time from arrival to the end.")
            yield from self._total.lines("latentmas_request_seconds")
            yield from _family(
                "first_token_seconds", "histogram", "Time from arrival to the first token."
            )
            yield from self._first.lines("latentmas_first_token_seconds")


_TOTALS = {
    "prompt_tokens": "Prompt positions that agents have read for finished prompts.",
    "completion_tokens": "Tokens that agents have written for finished prompts.",
    "latent_steps": "Latent steps for finished prompts.",
    "steps": "Steps of the batch, each a token of every row.",
    "row_steps": "Rows of all steps together.",
}


class HttpMetrics:
    """Responses by path and status; for one event loop."""

    def __init__(self) -> None:
        self._responses = Counter[tuple[str, int]]()

    def responded(self, path: str, status: int) -> None:
        """A response has begun."""
        self._responses[path, status] += 1

    def lines(self) -> Iterator[str]:
        """All samples, in Prometheus' text format."""
        yield from _family("http_responses_total", "counter", "Responses by path and status.")
        for (path, status), count in sorted(self._responses.items()):
            labels = f'path="{path}",status="{status}"'
            yield f"latentmas_http_responses_total{{{labels}}} {count}"


def _family(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP latentmas_{name} {text}"
    yield f"# TYPE latentmas_{name} {kind}"

"""CUDA graphs on a CPU: streams and graphs that only keep account, steps that really run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from latentmas.engine import cuda_graphs as replay
from latentmas.engine.executors.static import Static


class Stream:
    """A stream that knows who waits for it."""

    def wait_stream(self, other: Stream) -> None:
        """Nothing runs side by side here."""


class Graph:
    """Replays the step it was captured from, which it does not hold: a real graph holds none."""

    steps: list[Callable[[], None]]
    number: int

    def replay(self) -> None:
        """Run the step."""
        self.steps[self.number]()


class Cuda:
    """Stands for `torch.cuda` in captures; as there, a failed one stays on the capture stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = self.current = Stream()
        self.captures = 0
        self.steps: list[Callable[[], None]] = []
        """What was captured; it holds buffers."""
        self.fails = False
        for name, value in {
            "CUDAGraph": Graph,
            "Stream": Stream,
            "current_stream": lambda: self.current,
            "set_stream": self._set,
            "device": self._device,
            "stream": self._stream,
            "graph": self._graph,
            "graph_pool_handle": lambda: (0, 1),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        plain = replay.capture

        def capture(step: Callable[[], None], **options: Any) -> Any:
            self.captures += 1
            graph: Any = plain(step, **options)
            graph.steps, graph.number = self.steps, len(self.steps)
            self.steps.append(step)
            return graph

        monkeypatch.setattr(replay, "capture", capture)

    def _set(self, stream: Stream) -> None:
        self.current = stream

    @contextmanager
    def _device(self, _device: object) -> Iterator[None]:
        yield

    @contextmanager
    def _stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def _graph(self, _graph: Graph, *, stream: Stream, **_options: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.current = before


class Emulated(Static):
    """`cuda_graph` on a CPU, where an index beyond a buffer is an error at once."""

    captures = True

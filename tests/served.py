"""A small team behind a real server, in this process.

Teams are loaded in fp64: in fp32 the rounding of a batch differs from that of a row alone, which
now and then, in thousands of tokens, moves a draw to the next token.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.generation import GenerationBatch
from latentmas.serve import Engine, ServeSettings, create_app
from latentmas.serve.tickets import Asked, Inbox
from latentmas.testing import tiny_backbone

DRAWN = {"do_sample": True, "temperature": 1.3}


def pair(family: str = "qwen3", **config: Any) -> lm.Graph:
    """A reader that thinks and a writer; weights are large enough for answers to differ."""
    tiny = tiny_backbone(family, 32, initializer_range=0.12, **config)
    tiny = lm.Backbone(tiny.source, dtype="float64")
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("reader", tiny, prompt="Read: {{ question }}")
    graph.add_agent("writer", tiny, prompt="{{ reader }} {{ question }}", max_new_tokens=12)
    graph.connect("reader", "writer", link="recursive")
    return graph.output("writer")


def asked(question: str, seed: int = 0, **options: Any) -> Asked:
    """A prompt for the engine."""
    return Asked({"question": question}, lm.RunOptions(**options), seed)


def alone(system: lm.System, question: Asked) -> list[str]:
    """The answers to a prompt that runs with nothing beside it."""
    run = system.run([question.sample], options=question.options, seed=(question.seed,))
    return run.sequences[0]


async def texts(inbox: Inbox) -> list[list[str]]:
    """The answers of a request."""
    return [list(result.end.texts) for result in await inbox.finished()]


def until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Wait for something in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


async def soon(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """`until`, in an event loop."""
    await asyncio.to_thread(until, condition, seconds)


def write_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers end at their limit alone, and no machine is too fast to come between two tokens."""
    advance = GenerationBatch.advance

    def slow(self: GenerationBatch) -> None:
        time.sleep(0.01)
        advance(self)

    monkeypatch.setattr(GenerationBatch, "advance", slow)
    monkeypatch.setattr(LoadedBackbone, "stop_ids", frozenset())


@contextmanager
def engine(system: lm.System, **settings: Any) -> Iterator[Engine]:
    """An engine that is closed at the end."""
    made = Engine(system, ServeSettings(**settings))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def served(system: lm.System, **settings: Any) -> Iterator[tuple[str, Engine]]:
    """A server on a free port; its URL and its engine."""
    app = create_app(system, ServeSettings(**settings))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}", app.state.engine
        finally:
            server.should_exit = True
            thread.join()

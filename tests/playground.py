"""A server for the playground alone: the smallest engine, and uvicorn in a thread."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

import latentmas as lm
from latentmas.runtime import System
from latentmas.serve.playground import router
from latentmas.testing import tiny_backbone
from tests.teams import RECURSIVE

__all__ = ["Engine", "lively", "make_app", "served"]


def lively() -> System:
    """Three agents with weights so large that each message matters to the answer."""
    wild = {"initializer_range": 0.4, "tie_word_embeddings": False}
    small, wide = tiny_backbone("llama", 16, **wild), tiny_backbone("llama", 32, seed=1, **wild)
    sizes = {"rounds": 2, "latent_steps": 3, "max_new_tokens": 8}
    graph = lm.templates.sequential(planner=small, critic=wide, solver=small, **RECURSIVE, **sizes)
    return graph.compile().load()


class Engine:
    """Runs one function after another on a thread of its own."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._thread = ThreadPoolExecutor(1)
        self.outcomes = queue.Queue[Any]()
        """What the functions returned."""

    async def exclusive(self, fn: Callable[[System], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, fn)

    def _call(self, fn: Callable[[System], Any]) -> Any:
        outcome = fn(self._system)
        self.outcomes.put(outcome)
        return outcome


def make_app(system: System) -> FastAPI:
    app = FastAPI()
    app.state.engine = Engine(system)
    app.include_router(router())
    return app


@contextmanager
def served(app: Any, *, lifespan: Any = "off") -> Iterator[str]:
    """The address of the application, on a free port of this machine."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan=lifespan, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(600)
        listener.close()

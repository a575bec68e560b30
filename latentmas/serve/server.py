"""`run_server`: uvicorn, with a shutdown that finishes what was accepted."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from latentmas.serve.app import EXTRA
from latentmas.serve.engine import Engine

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["run_server"]


def run_server(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve an application of `create_app` until SIGTERM or Ctrl-C.

    The first signal lets accepted requests finish, while new ones get the status 503; then the
    server ends. A second signal ends it at once.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose one, which the log names.

    Raises:
        ModuleNotFoundError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA, name=error.name) from error
    config = uvicorn.Config(app, host=host, port=port, log_level="info", access_log=False)
    server = _graceful(uvicorn.Server, app.state.engine)(config)
    server.run()


def _graceful(base: type[Any], engine: Engine) -> type[Any]:
    """Uvicorn's server, which stops listening only when the engine has nothing left to do."""

    class Graceful(base):  # type: ignore[misc]
        draining: asyncio.Task[None] | None = None

        def handle_exit(self, sig: int, frame: Any) -> None:
            """Begin to shut down; the second signal is uvicorn's."""
            if engine.draining:
                self.should_exit = True
                self.force_exit = sig == signal.SIGINT
                return
            engine.drain()
            self.loop.call_soon_threadsafe(self._begin)

        def _begin(self) -> None:
            self.draining = self.loop.create_task(self._end())

        async def _end(self) -> None:
            await engine.drained()
            self.should_exit = True

        async def startup(self, sockets: Any = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)

    return Graceful

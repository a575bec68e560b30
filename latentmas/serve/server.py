"""`run_server`: uvicorn, with a shutdown that finishes what was accepted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latentmas.errors import LatentMASError
from latentmas.serve.app import EXTRA
from latentmas.serve.engine import Engine

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["open_socket", "run_server"]

_LAST_BYTES = 30
"""Seconds that clients have to read their answers when all of them are finished."""


def open_socket(host: str, port: int) -> socket.socket:
    """Take an address, so that it is known to be free before a team is loaded.

    Args:
        host: Name or address of this machine.
        port: Port; 0 lets the system choose one.

    Raises:
        LatentMASError: The address is taken, or is not one of this machine.
    """
    made = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        made = socket.socket(family, kind, number)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        if made is not None:
            made.close()
        raise LatentMASError(
            f"cannot listen on {host}:{port}: {error}; choose another host or port"
        ) from error
    return made


def run_server(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    sock: socket.socket | None = None,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve an application of `create_app` until SIGTERM or Ctrl-C.

    The first signal lets accepted requests finish, while new ones get the status 503; then the
    server ends. A second signal ends it at once.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on; 0 lets the system choose one.
        sock: Socket of `open_socket`, in place of `host` and `port`.
        on_start: Called with the server's URL when it takes requests.

    Raises:
        LatentMASError: uvicorn is not installed, or the address is taken or is not one of this
            machine.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise LatentMASError(EXTRA) from error
    sock = sock or open_socket(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_LAST_BYTES,
    )
    kind = _graceful(uvicorn.Server, app.state.engine, on_start or (lambda url: None))
    kind(config).run(sockets=[sock])


def _graceful(base: type[Any], engine: Engine, on_start: Callable[[str], None]) -> type[Any]:
    """Uvicorn's server, which stops listening only when the engine has nothing left to do."""

    class Graceful(base):  # type: ignore[misc]
        loop: asyncio.AbstractEventLoop | None = None

        async def startup(self, sockets: list[socket.socket]) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)
            on_start(_url(sockets[0]))

        def handle_exit(self, sig: int, frame: Any) -> None:
            """Begin to shut down; the second signal is uvicorn's."""
            if engine.draining or self.loop is None:
                self.should_exit, self.force_exit = True, True
                self.config.timeout_graceful_shutdown = 0
            else:
                self.loop.call_soon_threadsafe(self._begin)

        def _begin(self) -> None:
            engine.drain()
            self.ending = asyncio.create_task(self._end())

        async def _end(self) -> None:
            await engine.drained()
            self.should_exit = True

    return Graceful


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

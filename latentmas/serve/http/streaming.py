"""Server-sent events, and the end of a request whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["EventStream", "GoneError", "unless_gone"]

T = TypeVar("T")
_KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""


class GoneError(Exception):
    """The client has closed the connection."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Wait for something, unless the client goes first; then it is cancelled.

    Args:
        receive: Channel of the request, whose body has been read.
        work: What to wait for.

    Raises:
        GoneError: The client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await gone


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]) -> None:
        """A stream.

        Args:
            events: Data of each event.
            close: Called at the end, and when the client goes before it.
        """
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            with suppress(GoneError, OSError):
                await unless_gone(receive, self._send(send))
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait({following}, timeout=_KEEP_ALIVE)
                text = ": waiting\n\n"
                if following.done():
                    data = following.result()
                    if data is None:
                        break
                    text = f"data: {data}\n\n"
                    following = asyncio.ensure_future(anext(self._events, None))
                body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
                await send(body)
        finally:
            following.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

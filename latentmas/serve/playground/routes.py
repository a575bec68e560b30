"""The playground's routes: the page, and runs as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from latentmas.errors import DataError
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.serve.playground.asking import Ask, read_ask
from latentmas.serve.playground.page import make_page
from latentmas.serve.playground.running import Run

__all__ = ["make_router"]

_BODY = 4_000_000
"""Maximum number of bytes of a request."""
_BEAT = 5.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection open."""


def make_router() -> APIRouter:
    """Routes for one team; arguments and errors as `router`."""
    desk = _Desk()
    router = APIRouter()
    hidden: dict[str, Any] = {"include_in_schema": False}
    router.add_api_route("/", desk.page, methods=["GET"], response_class=HTMLResponse, **hidden)
    router.add_api_route("/playground/ask", desk.ask, methods=["POST"], **hidden)
    return router


class _Desk:
    """What the routes share: the plan of the team, and its twin once somebody has asked for it."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._twin: System | None = None
        self._runs: set[asyncio.Task[None]] = set()

    async def page(self, request: Request) -> Response:
        """The page."""
        text, headers = make_page(await self._plan_of(request))
        return HTMLResponse(text, headers=headers)

    async def ask(self, request: Request) -> Response:
        """A run as server-sent events: one JSON object in each `data:` line."""
        if _foreign(request):
            return _refusal(403, "this request comes from a page of another site")
        body = await _read(request)
        if body is None:
            return _refusal(413, f"the request has more than {_BODY:,} bytes")
        try:
            ask = read_ask(body, await self._plan_of(request))
        except DataError as error:
            return _refusal(400, str(error))
        events = self._events(ask, request.app.state.engine)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _plan_of(self, request: Request) -> Plan:
        if self._plan is None:
            self._plan = await request.app.state.engine.exclusive(lambda system: system.plan)
        assert self._plan is not None
        return self._plan

    async def _events(self, ask: Ask, engine: Any) -> AsyncIterator[str]:
        """Messages of a run as they come; whoever stops reading stops the run."""
        loop, messages = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def tell(message: dict[str, Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody reads
                loop.call_soon_threadsafe(messages.put_nowait, message)

        run = Run(ask, self._twin_of, tell)
        task = loop.create_task(_supervised(engine, run, messages))
        self._runs.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._runs.discard)
        try:
            yield _event({"type": "wait"})
            while True:
                try:
                    message = await asyncio.wait_for(messages.get(), _BEAT)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                yield _event(message)
                if message["type"] in ("end", "stopped", "error"):
                    return
        finally:
            run.stop()

    def _twin_of(self, system: System) -> System:
        """The text twin, made when first asked for; on the engine's thread alone."""
        if self._twin is None:
            self._twin = system.text_twin()
        return self._twin


async def _supervised(engine: Any, run: Run, messages: asyncio.Queue[dict[str, Any]]) -> None:
    """Have the engine run; an engine that refuses, such as one that is shutting down, says why."""
    try:
        await engine.exclusive(run)
    except Exception as error:
        messages.put_nowait({"type": "error", "message": str(error) or repr(error)})


def _event(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message, ensure_ascii=True)}\n\n"


def _refusal(status: int, message: str) -> JSONResponse:
    """An error in the form of OpenAI's API, as the server's other routes answer."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=status)


def _foreign(request: Request) -> bool:
    """Whether a browser sends it for a page of another origin; other programs send no origin."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


async def _read(request: Request) -> bytes | None:
    """The body; None when it is too long."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY:
            return None
    return body

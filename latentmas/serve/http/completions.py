"""The two endpoints that ask the team."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from latentmas.runtime import Finished
from latentmas.serve.engine import Engine
from latentmas.serve.errors import RequestError, request_error
from latentmas.serve.http.streaming import EventStream, GoneError, unless_gone
from latentmas.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    Form,
    read_question,
    read_request,
)
from latentmas.serve.tickets import Inbox, Text

__all__ = ["Completions"]

_BODY_SECONDS = 60
"""Seconds for which a body may arrive."""
_PATIENCE = 10.0
"""Seconds for which a stream waits for its request to begin, so that an error has its status."""


class Completions:
    """Handlers of `/v1/chat/completions` and `/v1/completions`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def chat(self, request: HttpRequest) -> Response:
        """Answer a chat."""
        return await self._answer(request, ChatRequest)

    async def complete(self, request: HttpRequest) -> Response:
        """Answer prompts."""
        return await self._answer(request, CompletionRequest)

    async def _answer(
        self, http: HttpRequest, kind: type[ChatRequest] | type[CompletionRequest]
    ) -> Response:
        engine = self._engine
        raw = await _body(http, engine.settings.max_body_bytes)
        question = read_question(read_request(kind, raw), engine.system.plan, engine.settings)
        form, streams = Form(question), question.request.stream
        inbox = engine.submit(question.asked, streams=streams)
        try:
            if streams:
                return await _stream(http, form, inbox)
            results = await unless_gone(http.receive, inbox.finished())
        except GoneError:
            inbox.cancel()
            return Response(status_code=499)
        except BaseException:
            inbox.cancel()
            raise
        return JSONResponse(form.whole(results))


async def _body(http: HttpRequest, most: int) -> bytes:
    """The body of a request, of JSON and of a bounded size.

    Raises:
        RequestError: It is something else (415), too large (413), or too slow (408).
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a form on a web page sends needs no leave of the browser
        raise RequestError(415, f"the content type is {kind!r:.60}; send JSON, as application/json")
    raw = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in http.stream():
                raw += chunk
                if len(raw) > most:
                    raise RequestError(
                        413,
                        f"the body is larger than {most:,} bytes, the limit of this server; send "
                        "less text",
                        code="request_too_large",
                    )
    except TimeoutError:
        raise RequestError(
            408, f"the body did not arrive within {_BODY_SECONDS} seconds; send it again"
        ) from None
    return bytes(raw)


async def _stream(http: HttpRequest, form: Form, inbox: Inbox) -> Response:
    """A stream of chunks. An error before it begins is an ordinary response."""
    events = inbox.events()
    first = asyncio.ensure_future(anext(events))
    try:
        await unless_gone(http.receive, asyncio.wait({first}, timeout=_PATIENCE))
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        raise
    return EventStream(_chunks(form, inbox, first, events), inbox.cancel)


async def _chunks(
    form: Form, inbox: Inbox, first: asyncio.Future[Any], events: AsyncIterator[Any]
) -> AsyncIterator[str]:
    """The data of a stream, one chunk after another."""
    try:
        for chunk in form.first():
            yield json.dumps(chunk)
        for chunk in _written(form, *await first):
            yield json.dumps(chunk)
        async for number, event in events:
            for chunk in _written(form, number, event):
                yield json.dumps(chunk)
        for chunk in form.last([inbox.results[i] for i in range(len(inbox.tickets))]):
            yield json.dumps(chunk)
    except Exception as error:  # the status is sent already: the client reads it in the stream
        yield json.dumps(request_error(error).body())
    yield "[DONE]"


def _written(form: Form, number: int, event: Any) -> list[dict[str, Any]]:
    """The chunks of an event."""
    if isinstance(event, Text):
        return [form.piece(number, event.sequence, event.text)]
    return list(form.ends(number, event)) if isinstance(event, Finished) else []

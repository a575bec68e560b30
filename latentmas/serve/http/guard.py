"""What every request passes first: host names, keys, and the count of responses."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from latentmas.serve.errors import RequestError
from latentmas.serve.metrics import HttpMetrics
from latentmas.serve.settings import ServeSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

_OPEN = frozenset(("/health",))
"""Paths that need no key."""
_COUNTED = frozenset(
    ("/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions")
)
"""Paths with counts of their own; all others are counted together."""


class Guard:
    """Middleware that refuses requests to other hosts and requests without a key."""

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, metrics: HttpMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in _COUNTED else "other"
                self._metrics.responded(known, message["status"])
            await send(message)

        error = self._refusal(path, Headers(scope=scope))
        if error is None:
            await self._app(scope, receive, counted)
            return
        headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
        await JSONResponse(error.body(), error.status, headers)(scope, receive, counted)

    def _refusal(self, path: str, headers: Headers) -> RequestError | None:
        hosts = self._settings.allowed_hosts
        if hosts and _host(headers.get("host", "")) not in hosts:
            return RequestError(
                421,
                f"this server is not {headers.get('host', '')!r:.80}; it answers to: "
                f"{', '.join(hosts)}",
                code="wrong_host",
            )
        page = path == "/" and self._settings.playground  # it asks for the key, and sends it
        if page or path in _OPEN or not self._keys or self._has_key(headers):
            return None
        return RequestError(
            401,
            "the API key is missing or wrong; send the header Authorization: Bearer KEY",
            kind="authentication_error",
            code="invalid_api_key",
        )

    def _has_key(self, headers: Headers) -> bool:
        """Whether a key was sent; every key is compared, in constant time."""
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        given = sent.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        return sum(hmac.compare_digest(given, key) for key in self._keys) > 0


def _host(header: str) -> str:
    """The name in a `Host` header, without the port."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdigit() else header).lower()

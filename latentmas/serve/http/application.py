"""The application: routes, errors and what surrounds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from latentmas.serve.engine import Engine
from latentmas.serve.errors import RequestError, request_error
from latentmas.serve.http.completions import Completions
from latentmas.serve.http.guard import Guard
from latentmas.serve.metrics import CONTENT_TYPE, HttpMetrics
from latentmas.serve.protocol import model_name

__all__ = ["build"]


def build(engine: Engine) -> FastAPI:
    """The application that serves an engine's team."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="latentmas", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.engine, metrics = engine, HttpMetrics()
    _add_routes(app, engine, metrics)
    app.add_exception_handler(RequestError, _told)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _told)
    if engine.settings.playground:
        from latentmas.serve.playground import router

        app.include_router(router())
    app.add_middleware(Guard, settings=engine.settings, metrics=metrics)
    if engine.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(engine.settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


def _add_routes(app: FastAPI, engine: Engine, metrics: HttpMetrics) -> None:
    name = model_name(engine.system.plan, engine.settings)
    completions = Completions(engine)

    async def health(request: Request) -> Response:
        """Whether requests are taken."""
        status = "shutting down" if engine.draining else "ok"
        return JSONResponse({"status": status}, 503 if engine.draining else 200)

    async def models(request: Request) -> Response:
        """The one model of this server."""
        return JSONResponse({"object": "list", "data": [_model(name)]})

    async def model(request: Request) -> Response:
        """The model of a name."""
        asked = request.path_params["name"]
        if asked != name:
            message = f"the model {asked!r:.80} does not exist; this server has {name!r}"
            raise RequestError(404, message, param="model", code="model_not_found")
        return JSONResponse(_model(name))

    async def figures(request: Request) -> Response:
        """Counts for Prometheus."""
        lines = [*engine.metrics.lines(), *metrics.lines()]
        return PlainTextResponse("\n".join(lines) + "\n", media_type=CONTENT_TYPE)

    app.add_route("/health", health)
    app.add_route("/metrics", figures)
    app.add_route("/v1/models", models)
    app.add_route("/v1/models/{name:path}", model)
    app.add_route("/v1/chat/completions", completions.chat, methods=["POST"])
    app.add_route("/v1/completions", completions.complete, methods=["POST"])


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "latentmas"}


async def _told(request: Request, error: Exception) -> Response:
    """An error in OpenAI's form."""
    found = request_error(error)
    headers = {"retry-after": "1"} if found.status in (429, 503) else None
    return JSONResponse(found.body(), found.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """A path or method that does not exist."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(
        RequestError(error.status_code, message).body(), error.status_code, error.headers
    )

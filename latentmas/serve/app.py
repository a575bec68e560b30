"""`create_app`: the server as an ASGI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.errors import LatentMASError
from latentmas.runtime import System
from latentmas.serve.engine import Engine
from latentmas.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["EXTRA", "create_app"]

EXTRA = "serving teams needs fastapi and uvicorn; install them with: pip install 'latentmas[serve]'"


def create_app(system: System, settings: ServeSettings | None = None) -> FastAPI:
    """Make an ASGI application that serves a team.

    Its `state.engine` is the `Engine` that runs the team. The engine is closed when the application
    shuts down, after what it has accepted is finished.

    Args:
        system: The team. Only the engine runs it from now on.
        settings: Limits and access rules. Default: those of `ServeSettings()`.

    Returns:
        The application; `uvicorn.run(app)` serves it, and `run_server` does so with a shutdown that
        loses no request.

    Raises:
        LatentMASError: fastapi is not installed.
        TypeError: `system` is not a system.
    """
    try:
        import fastapi  # noqa: F401  # asked for first, so that the message names the extra
    except ImportError as error:
        raise LatentMASError(EXTRA) from error
    from latentmas.serve.http.application import build

    return build(Engine(system, settings))

"""The playground: a page on which to ask a team, watch it think, and change its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.errors import LatentMASError

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["router"]


def router() -> APIRouter:
    """Routes of the playground: the page `/`, and `/playground/ask`, which answers with events.

    The application that includes it offers `app.state.engine`, whose coroutine `exclusive(fn)` runs
    `fn(system)` on the thread that owns the system and returns the result.

    Raises:
        LatentMASError: FastAPI is not installed.
    """
    try:
        from latentmas.serve.playground.routes import make_router
    except ImportError as error:
        raise LatentMASError(
            "the playground needs the package fastapi; install it with "
            "pip install 'latentmas[serve]'"
        ) from error
    return make_router()

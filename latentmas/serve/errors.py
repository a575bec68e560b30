"""Errors as clients see them: a status, and the form that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from latentmas.errors import ExecutionError, LatentMASError
from latentmas.redact import get_logger

__all__ = ["RequestError", "bad_request", "busy", "overdue", "request_error", "shutting_down"]

log = get_logger("latentmas.serve")


class RequestError(LatentMASError):
    """A request that is not answered, with the status that its client gets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """An error for a client.

        Args:
            status: HTTP status.
            message: What is wrong and how to fix it.
            kind: Kind of error, as OpenAI names them.
            param: Field of the request that is wrong.
            code: Short name of what is wrong.
        """
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        fields = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": fields}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> RequestError:
    """A request that is wrong in itself (400)."""
    return RequestError(400, message, param=param, code=code)


def busy(waiting: int) -> RequestError:
    """More requests wait than may (429)."""
    return RequestError(
        429,
        f"{waiting} prompts wait already, and no more may; try again in a moment",
        kind="rate_limit_error",
        code="queue_full",
    )


def shutting_down() -> RequestError:
    """The server finishes what it has, and takes no more (503)."""
    return RequestError(
        503,
        "the server is shutting down and takes no further requests",
        kind="server_error",
        code="shutting_down",
    )


def overdue(seconds: float) -> RequestError:
    """The time limit of a request has passed (504)."""
    return RequestError(
        504,
        f"the answer was not finished within {seconds:g} seconds, the time limit of this server; "
        "ask for fewer tokens, rounds or latent steps",
        kind="server_error",
        code="timeout",
    )


def request_error(error: BaseException) -> RequestError:
    """What a client gets to see of an error; a failure of our own is logged in full."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, LatentMASError) and not isinstance(error, ExecutionError):
        return bad_request(str(error))
    log.error("a request failed: %s", error, exc_info=error)
    if isinstance(error, ExecutionError):
        return RequestError(500, str(error), kind="server_error", code="execution_failed")
    return RequestError(
        500,
        f"internal error ({type(error).__name__}); the server's log has more",
        kind="server_error",
        code="internal_error",
    )

"""What a server allows: limits, keys, where its answers may go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from latentmas.arguments import refuse, whole
from latentmas.redact import hide

__all__ = ["Conversation", "ServeSettings"]

Conversation = Literal["join", "refuse"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and access rules of a server.

    Raises:
        LatentMASError: A value is out of range; the message names it.
    """

    model: str | None = None
    """Model name that clients use. Default: the name of the team's graph."""
    api_keys: tuple[str, ...] = ()
    """Keys of which a client must send one as a bearer token; none: no key is needed."""
    max_rows: int = 32
    """Maximum number of answers that are written at once."""
    max_waiting: int = 256
    """Maximum number of prompts that wait for a place; further ones are refused (429)."""
    max_body_bytes: int = 1 << 20
    """Maximum size of a request (413)."""
    max_new_tokens: int = 4096
    """Maximum number of tokens of an answer that a client may ask for."""
    max_rounds: int = 16
    """Maximum number of rounds that a client may ask for."""
    max_latent_steps: int = 256
    """Maximum number of latent steps that a client may ask for."""
    request_seconds: float = 600.0
    """Time limit for a request from its arrival to its last token (504)."""
    conversation: Conversation = "join"
    """What becomes of a chat with more than one message: join them into one text, or refuse it."""
    executor: str | None = None
    """Name of the executor. Default: the system's."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the `Host` header may hold (421); none: any. Names of this machine protect a local
    server from web pages that have their own name resolved to it."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may read answers; `*` for all. None: pages of other origins may
    not."""
    playground: bool = False
    """Whether to serve the page that shows the team at work."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_waiting", "max_body_bytes", "max_new_tokens"):
            whole(name, getattr(self, name))
        for name in ("max_rounds", "max_latent_steps"):
            whole(name, getattr(self, name))
        if not isinstance(self.request_seconds, int | float) or not self.request_seconds > 0:
            raise refuse("request_seconds", self.request_seconds, "give a number above 0")
        if self.conversation not in get_args(Conversation):
            raise refuse("conversation", self.conversation, 'give "join" or "refuse"')
        for name in ("api_keys", "allowed_hosts", "cors_origins"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for key in self.api_keys:
            hide(key)


def _texts(name: str, value: object) -> tuple[str, ...]:
    """A sequence of strings that are not empty."""
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    for text in found:
        if not isinstance(text, str) or not text:
            raise refuse(name, "" if text == "" else type(text), "give strings, none of them empty")
    return found  # type: ignore[return-value]

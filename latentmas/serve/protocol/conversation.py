"""Messages of a chat as one text, for a graph that takes one question."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.serve.errors import bad_request
from latentmas.serve.protocol.requests import Message
from latentmas.serve.settings import Conversation

__all__ = ["text_of"]

_SYSTEM = ("system", "developer")
_SPEAKERS = {"user": "User", "assistant": "Assistant"}


def text_of(messages: Sequence[Message], rule: Conversation) -> str:
    """The text that a chat puts into a graph's input.

    A single user message is the text as it is. System messages come before it, with an empty line
    between them. Where there are several turns, each begins with its speaker.

    Args:
        messages: The chat, oldest first; the last one is the user's.
        rule: Whether more than one message is joined or refused.

    Raises:
        RequestError: A role or the content of a message is not supported, the last message is not
            the user's, or there are several and they are to be refused.
    """
    texts = [(_role(i, message), _content(i, message)) for i, message in enumerate(messages)]
    if texts[-1][0] != "user":
        raise bad_request(
            f"the last message has the role {texts[-1][0]!r}; a team answers a user: end with a "
            "message of the role 'user'",
            f"messages.{len(texts) - 1}.role",
        )
    if rule == "refuse" and len(texts) > 1:
        raise bad_request(
            f"{len(texts)} messages: this team answers single questions; send one message, of the "
            "role 'user'",
            "messages",
        )
    system = [text for role, text in texts if role in _SYSTEM]
    turns = [(role, text) for role, text in texts if role not in _SYSTEM]
    if len(turns) == 1:
        return "\n\n".join([*system, turns[0][1]])
    return "\n\n".join([*system, *(f"{_SPEAKERS[role]}: {text}" for role, text in turns)])


def _role(number: int, message: Message) -> str:
    if message.role not in (*_SYSTEM, *_SPEAKERS):
        known = ", ".join([*_SYSTEM, *_SPEAKERS])
        raise bad_request(
            f"the role {message.role!r:.60} is not supported; use one of: {known}",
            f"messages.{number}.role",
        )
    return message.role


def _content(number: int, message: Message) -> str:
    """The text of a message; several parts are joined by line breaks."""
    where = f"messages.{number}.content"
    if isinstance(message.content, str):
        return message.content
    if not message.content:
        raise bad_request(f"{where} is empty; give a text", where)
    texts = list[str]()
    for i, part in enumerate(message.content):
        kind, text = part.get("type"), part.get("text")
        if kind != "text" or not isinstance(text, str):
            raise bad_request(
                f"a part of the type {kind!r:.60} is not supported; send text: "
                '{"type": "text", "text": "…"}',
                f"{where}.{i}",
            )
        texts.append(text)
    return "\n".join(texts)

"""A request on its way through the engine, and the inbox in which its answers arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from latentmas.plan import RunOptions
from latentmas.runtime import Finished, JoinedSamples, RunEnd, TextWatcher, Token

__all__ = ["Asked", "Begun", "Event", "Inbox", "Text", "Ticket"]


@dataclass(frozen=True)
class Asked:
    """One prompt of a request."""

    sample: Mapping[str, Any]
    """Inputs of the graph."""
    options: RunOptions
    """Options of the run, with seed 0: prompts with equal options begin together."""
    seed: int


@dataclass(frozen=True)
class Begun:
    """The prompt has been checked, and its latent phase begins."""


@dataclass(frozen=True)
class Text:
    """Text that was added to an answer."""

    sequence: int
    """Which of the prompt's answers."""
    text: str


Event = Begun | Text | Finished | Exception


@dataclass(eq=False)
class Ticket:
    """One prompt in the engine. All but `cancelled` belongs to the engine's thread."""

    asked: Asked
    number: int
    """Its place among the prompts of its request."""
    inbox: Inbox
    deadline: float
    """Time, as `time.monotonic` counts it, at which it is given up."""
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    """Whether nobody waits for it any more; set from the event loop's thread."""
    alone: bool = False
    """Whether it must run with nothing beside it, since it was in a batch that has failed."""
    group: JoinedSamples | None = None
    place: int = 0
    first_text: float | None = None
    """When its first token was written."""
    _watcher: TextWatcher | None = None
    _written: list[int] = field(default_factory=list)
    """Tokens of each answer in this attempt."""
    _told: list[int] = field(default_factory=list)
    """Tokens of each answer that have been passed on, in this attempt or an earlier one."""

    @property
    def count(self) -> int:
        """Number of answers, each of which takes a row."""
        return self.asked.options.num_return_sequences

    def begin(self, watcher: TextWatcher | None) -> None:
        """An attempt begins. Another one writes the same tokens, which are passed on once.

        Args:
            watcher: Turns tokens into text; None if only the whole answer is wanted.
        """
        self._written = [0] * self.count
        self._told = self._told or [0] * self.count
        self._watcher = self._watcher or watcher

    def write(self, token: Token) -> None:
        """A token was written for one of the answers."""
        self.first_text = self.first_text or time.monotonic()
        self._written[token.sequence] += 1
        if self._watcher is None or self._written[token.sequence] <= self._told[token.sequence]:
            return
        self._told[token.sequence] += 1
        self._watcher(Token(token.sequence, token.agent, token.token_id))

    def end(self) -> None:
        """All answers are written: text that was held back is passed on."""
        if self._watcher is not None:
            self._watcher(RunEnd(0.0, None))


class Inbox:
    """Where the answers of a request arrive; for one event loop."""

    def __init__(self, asked: Sequence[Asked], *, streams: bool, seconds: float) -> None:
        """An inbox for the prompts of one request.

        Args:
            asked: The prompts.
            streams: Whether text is wanted while it is written.
            seconds: Time limit of the request.
        """
        self.streams, self._loop = streams, asyncio.get_running_loop()
        self._events = asyncio.Queue[tuple[int, Event]]()
        deadline = time.monotonic() + seconds
        self.tickets = [Ticket(one, i, self, deadline) for i, one in enumerate(asked)]
        self.results: dict[int, Finished] = {}
        """Results of the prompts that are finished, by number."""

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Each event with the number of its prompt, until all are finished.

        Raises:
            Exception: Whatever made one of the prompts fail.
        """
        while len(self.results) < len(self.tickets):
            number, event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Finished):
                self.results[number] = event
            yield number, event

    async def finished(self) -> list[Finished]:
        """The results of all prompts, in order.

        Raises:
            Exception: Whatever made one of the prompts fail.
        """
        async for _ in self.events():
            pass
        return [self.results[i] for i in range(len(self.tickets))]

    def cancel(self) -> None:
        """Give up what is not finished; its rows become free."""
        for ticket in self.tickets:
            ticket.cancelled = True

    def deliver(self, events: Sequence[tuple[int, Event]]) -> None:
        """Take in events, from any thread; nothing happens if the event loop has ended."""

        def put() -> None:
            for event in events:
                self._events.put_nowait(event)

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(put)

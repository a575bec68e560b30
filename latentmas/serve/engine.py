"""`Engine`: one thread that runs a team for many requests at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from latentmas.errors import ExecutionError, LatentMASError
from latentmas.runtime import Event as RunEvent
from latentmas.runtime import OpenBatch, System, TextWatcher, Token, check_system
from latentmas.serve.errors import bad_request, busy, overdue, request_error, shutting_down
from latentmas.serve.metrics import EngineMetrics
from latentmas.serve.settings import ServeSettings
from latentmas.serve.tickets import Asked, Begun, Event, Inbox, Text, Ticket

__all__ = ["Engine"]

T = TypeVar("T")
_GATHER = 0.002
"""Seconds for which an idle engine waits for requests that come at the same moment."""


@dataclass(eq=False)
class _Exclusive:
    """A function that wants the team to itself."""

    call: Callable[[], None]


class Engine:
    """Runs a team for requests that come and go, in a thread of its own.

    Requests join the batch while others are being written, and leave it when they are finished. A
    request's answers equal those of `system.run([sample], seed=(seed,), …)`.
    """

    def __init__(self, system: System, settings: ServeSettings | None = None) -> None:
        """An engine; its thread starts with the first request.

        Args:
            system: The team. Only the engine runs it from now on; `exclusive` lends it.
            settings: Limits. Default: those of `ServeSettings()`.

        Raises:
            TypeError: `system` is not a system.
            UnknownNameError: The executor is unknown.
        """
        self.system = check_system("Engine", system)
        """The team."""
        self.settings = settings or ServeSettings()
        """Limits."""
        self.metrics = EngineMetrics(lambda: (len(self._waiting), self._running, self._rows))
        """What it has done."""
        self._batch = OpenBatch(system, executor=self.settings.executor)
        self._waiting = deque[Ticket | _Exclusive]()
        self._active: list[Ticket] = []
        self._outbox: list[tuple[Ticket, Event]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._draining = self._closed = False
        self._pending = self._running = self._rows = 0

    @property
    def draining(self) -> bool:
        """Whether it refuses further requests."""
        return self._draining

    # --- called in event loops ----------------------------------------------------------------

    def submit(self, asked: Sequence[Asked], *, streams: bool = False) -> Inbox:
        """Ask for answers; all prompts are taken, or none is. Called in a running event loop.

        Args:
            asked: Prompts of one request.
            streams: Whether text is wanted while it is written.

        Returns:
            Inbox in which the answers arrive.

        Raises:
            RequestError: Too many prompts wait (429), or the engine is shutting down (503).
        """
        inbox = Inbox(asked, streams=streams, seconds=self.settings.request_seconds)
        with self._changed:
            if self._draining:
                raise shutting_down()
            if len(self._waiting) + len(asked) > self.settings.max_waiting:
                raise busy(len(self._waiting))
            self._waiting += inbox.tickets
            self._pending += len(asked)
            self._wake()
        return inbox

    async def exclusive(self, function: Callable[[System], T]) -> T:
        """Run a function on the engine's thread, between batches, with the team to itself.

        Requests that came before are finished first, and those that come later wait.

        Args:
            function: Takes the team.

        Returns:
            What the function returned.

        Raises:
            RequestError: The engine is shutting down (503).
            BaseException: Whatever the function raised.
        """
        future = Future[T]()

        def call() -> None:
            if not future.set_running_or_notify_cancel():  # cancelled while it waited
                return
            try:
                future.set_result(function(self.system))
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            if self._draining:
                raise shutting_down()
            self._waiting.append(_Exclusive(call))
            self._pending += 1
            self._wake()
        return await asyncio.wrap_future(future)

    def drain(self) -> None:
        """Refuse further requests; those that were accepted are finished."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    async def drained(self) -> None:
        """Wait until every accepted request is finished."""
        while self._pending:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Finish what was accepted, and end the thread."""
        self.drain()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    # --- called in the engine's thread --------------------------------------------------------

    def _work(self) -> None:
        """Batches and exclusive calls, in the order in which they were asked for."""
        while (item := self._next()) is not None:
            if isinstance(item, _Exclusive):
                item.call()
                self._done()
                continue
            time.sleep(_GATHER)
            try:
                with self._batch.active():
                    while self._step():
                        pass
            except BaseException as error:  # goes to those who wait; the thread serves the next
                self._fail(self._active or self._tickets()[:1], error)

    def _next(self) -> Ticket | _Exclusive | None:
        """The oldest item; an exclusive call is taken from the queue. None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            first = self._waiting[0]
            return self._waiting.popleft() if isinstance(first, _Exclusive) else first

    def _step(self) -> bool:
        """Let requests join, and write a token of each row; False when nothing is in progress."""
        self._drop_gone()
        if tickets := self._take():
            self._begin(tickets)
        more = bool(self._batch.joined)
        if more:
            self._advance()
        elif self._waiting:
            more = isinstance(self._waiting[0], Ticket)
        self._running, self._rows = len(self._active), self._batch.rows
        self._flush()
        return more

    def _drop_gone(self) -> None:
        """Give up requests whose clients have gone, or whose time is over."""
        now = time.monotonic()
        for ticket in [t for t in self._tickets() if t.cancelled or now > t.deadline]:
            if ticket.group is not None:
                ticket.group.cancel(ticket.place)
            if ticket.cancelled:
                self._leave(ticket, "cancelled")
            else:
                self._leave(ticket, "expired", overdue(self.settings.request_seconds))

    def _tickets(self) -> list[Ticket]:
        with self._changed:
            return [*self._active, *(t for t in self._waiting if isinstance(t, Ticket))]

    def _take(self) -> list[Ticket]:
        """The requests that join now: the oldest one, and those with equal options."""
        room, empty = self.settings.max_rows - self._batch.rows, not self._active
        with self._changed:
            head = self._waiting[0] if self._waiting else None
            if not isinstance(head, Ticket) or any(ticket.alone for ticket in self._active):
                return []
            if not empty and (head.alone or head.count > room or not self._batch.can_join()):
                return []
            taken = list[Ticket]()
            for ticket in self._waiting:
                if isinstance(ticket, _Exclusive) or (taken and head.alone):
                    break
                fits = ticket is head or not ticket.alone
                if fits and ticket.asked.options == head.asked.options and ticket.count <= room:
                    taken.append(ticket)
                    room -= ticket.count
            for ticket in taken:
                self._waiting.remove(ticket)
        self._active += taken
        return taken

    def _begin(self, tickets: list[Ticket]) -> None:
        """Check some requests and run their latent phase."""
        options, samples = tickets[0].asked.options, [t.asked.sample for t in tickets]
        try:
            errors = self._batch.check(samples, options)
        except LatentMASError as error:
            self._fail(tickets, error)
            return
        for place, wrong in errors.items():
            message = str(wrong).removeprefix(f"sample {place}: ")
            self._fail([tickets[place]], bad_request(message))
        tickets = [ticket for place, ticket in enumerate(tickets) if place not in errors]
        if not tickets:
            return
        for ticket in tickets:
            ticket.begin(self._watcher(ticket) if ticket.inbox.streams else None)
            self._outbox.append((ticket, Begun()))
        self._flush()

        def on_event(event: RunEvent) -> None:
            if isinstance(event, Token):
                tickets[event.sample].write(event)

        seeds = tuple(ticket.asked.seed for ticket in tickets)
        samples = [ticket.asked.sample for ticket in tickets]
        try:
            group = self._batch.join(samples, options.replace(seed=seeds), on_event)
        except ExecutionError as error:
            self._recover(error)
            return
        for place, ticket in enumerate(tickets):
            ticket.group, ticket.place = group, place

    def _advance(self) -> None:
        """Write a token of each row, and resolve the requests that it finishes."""
        self.metrics.stepped(self._batch.rows)
        try:
            self._batch.advance()
        except ExecutionError as error:
            self._recover(error)
            return
        by_place = {(ticket.group, ticket.place): ticket for ticket in self._active}
        for group, place, finished in self._batch.finished():
            ticket = by_place[group, place]
            ticket.end()
            self.metrics.finished(finished, ticket.arrived, ticket.first_text)
            self._leave(ticket, "finished", finished)

    def _recover(self, error: ExecutionError) -> None:
        """Let the requests that a failure has cost run again, each alone; then it is its own."""
        lost = [t for t in self._active if t.group not in self._batch.joined]
        self._fail([ticket for ticket in lost if ticket.alone], error)
        again = [ticket for ticket in lost if not ticket.alone]
        for ticket in again:
            ticket.alone, ticket.group = True, None
            self._active.remove(ticket)
        with self._changed:
            self._waiting.extendleft(reversed(again))

    def _fail(self, tickets: Sequence[Ticket], error: BaseException) -> None:
        for ticket in list(tickets):
            self._leave(ticket, "failed", request_error(error))
        self._flush()

    def _leave(self, ticket: Ticket, how: str, event: Event | None = None) -> None:
        """A request leaves the engine; it is counted, and told how it ended."""
        with self._changed:
            if ticket in self._active:
                self._active.remove(ticket)
            else:
                self._waiting.remove(ticket)
        self.metrics.left(how)
        self._done()
        if event is not None:
            self._outbox.append((ticket, event))

    def _done(self) -> None:
        with self._changed:
            self._pending -= 1

    def _watcher(self, ticket: Ticket) -> TextWatcher:
        """What turns the tokens of a request into text."""
        tokenizer = self.system.backbone_of(self.system.plan.output).tokenizer

        def on_text(sequence: int, text: str) -> None:
            self._outbox.append((ticket, Text(sequence, text)))

        return TextWatcher(tokenizer, on_text, ticket.asked.options.stop)

    def _flush(self) -> None:
        """Hand out what was written, with one call for each request."""
        out, self._outbox = self._outbox, []
        by_inbox: dict[Inbox, list[tuple[int, Event]]] = {}
        for ticket, event in out:
            by_inbox.setdefault(ticket.inbox, []).append((ticket.number, event))
        for inbox, events in by_inbox.items():
            inbox.deliver(events)

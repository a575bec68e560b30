"""`MicroBatcher`: requests that arrive one at a time run together, in one engine thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from latentmas.errors import LatentMASError
from latentmas.plan import RunOptions
from latentmas.runtime import Event, SampleEnd, System

__all__ = ["MicroBatcher"]


class _Request(NamedTuple):
    sample: Mapping[str, Any]
    options: RunOptions
    """With seed 0: requests whose options are equal run together."""
    seed: int
    future: Future[SampleEnd]


class MicroBatcher:
    """Collects requests for a short time and runs those with equal options as one batch.

    Each request has a random seed of its own, so its answer does not depend on what else runs with
    it: it equals `system.run([sample], seed=(seed,), …)`.
    """

    def __init__(self, system: System, *, batch_size: int = 32, wait: float = 0.005) -> None:
        """Prepare; the thread starts with the first request.

        Args:
            system: The team. Only the engine thread may run it until `close`.
            batch_size: Maximum number of requests that run together.
            wait: Time in seconds to wait for further requests.
        """
        self._system, self._batch_size, self._wait = system, batch_size, wait
        self._waiting = deque[_Request]()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, sample: Mapping[str, Any], options: RunOptions) -> Future[SampleEnd]:
        """Ask for the answer to one sample; may be called from any thread.

        Args:
            sample: Inputs of the graph.
            options: Options of the run; `seed` is a single number.

        Returns:
            Future of the answer. Cancelling it withdraws a request that has not started.

        Raises:
            LatentMASError: The batcher is closed, or `seed` is a sequence.
        """
        if not isinstance(options.seed, int):
            raise LatentMASError("a single request has one seed: give a whole number")
        shared = options.replace(seed=0, on_error="keep", batch_size=self._batch_size)
        request = _Request(sample, shared, options.seed, Future())
        with self._changed:
            if self._closed:
                raise LatentMASError("the batcher is closed and takes no requests; make a new one")
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
            self._waiting.append(request)
            self._changed.notify_all()
        return request.future

    def close(self) -> None:
        """Withdraw the requests that have not started, and wait for those that run."""
        with self._changed:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().future.cancel()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while batch := self._next_batch():
            _answer(self._system, batch)

    def _next_batch(self) -> list[_Request]:
        """Requests with the options of the oldest one; none when the batcher is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                deadline = time.monotonic() + self._wait
                while not self._closed and len(self._waiting) < self._batch_size:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
                if self._closed:
                    return []
                if batch := self._take():
                    return batch

    def _take(self) -> list[_Request]:
        batch, left = list[_Request](), deque[_Request]()
        for request in self._waiting:
            fits = not batch or request.options == batch[0].options
            if not fits or len(batch) == self._batch_size:
                left.append(request)
            elif request.future.set_running_or_notify_cancel():  # False: cancelled while it waited
                batch.append(request)
        self._waiting = left
        return batch


def _answer(system: System, batch: list[_Request]) -> None:
    """Run a batch; each request gets its answer as soon as it is written."""

    def on_event(event: Event) -> None:
        if not isinstance(event, SampleEnd):
            return
        future = batch[event.sample].future
        if event.error is None:
            future.set_result(event)
        else:
            future.set_exception(event.error)

    seeds = tuple(request.seed for request in batch)
    options = batch[0].options.replace(seed=seeds)
    try:
        system.run([request.sample for request in batch], options=options, on_event=on_event)
    except BaseException as error:  # goes to those who wait; the thread serves the next batch
        for request in batch:
            if not request.future.done():
                request.future.set_exception(error)

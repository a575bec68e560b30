"""One run for the page, on the engine's thread: told while it goes, stopped on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.redact import get_logger
from latentmas.runtime import Event, RunEnd, RunResult, StepBegin, StepEnd, System
from latentmas.serve.playground.asking import Ask
from latentmas.serve.playground.changes import changed
from latentmas.serve.playground.reading import read_result, step_facts

__all__ = ["Run", "Tell"]

Tell = Callable[[dict[str, Any]], None]
"""Takes one message for the page."""
log = get_logger("latentmas.serve.playground")


class _StoppedError(Exception):
    """Nobody waits for the run any more."""


class Run:
    """A run that tells the page each step and each piece of text.

    The last message is `end` with the result, `stopped`, or `error`.
    """

    def __init__(self, ask: Ask, twin_of: Callable[[System], System], tell: Tell) -> None:
        self._ask, self._twin_of, self._tell = ask, twin_of, tell
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the run at its next step or token; from any thread."""
        self._stop.set()

    def __call__(self, system: System) -> str:
        """Run, and tell how it went; raises nothing.

        Returns:
            The type of the last message.
        """
        try:
            self._check()
            last = self._run(self._twin_of(system) if self._ask.twin else system)
        except Exception as error:
            last = self._failed(error)
        self._tell(last)
        return str(last["type"])

    def _failed(self, error: Exception) -> dict[str, Any]:
        if self._stop.is_set():
            return {"type": "stopped"}
        if isinstance(error, LatentMASError):
            return {"type": "error", "message": str(error)}
        log.error("a run of the playground failed", exc_info=error)
        message = f"the server failed with {type(error).__name__}; its log says more"
        return {"type": "error", "message": message}

    def _run(self, system: System) -> dict[str, Any]:
        ask = self._ask
        plan = system.plan.replace(rounds=ask.rounds, latent_steps=ask.latent_steps)
        self._tell({"type": "begin", "steps": step_facts(plan)})
        with changed(system, ask, lambda: self._run_other(system)):
            result = system.run(
                [ask.inputs],
                rounds=ask.rounds,
                latent_steps=ask.latent_steps,
                max_new_tokens=ask.max_new_tokens,
                record="report",
                on_event=self._watch,
                on_text=lambda _, text: self._tell({"type": "text", "text": text}),
            )
        return {"type": "end", **read_result(plan, result)}

    def _run_other(self, system: System) -> RunResult:
        """Run the other question, for its messages alone: its answer may have one token."""
        ask, graph = self._ask, system.plan.graph
        self._tell({"type": "note", "text": "Asking the other question for its messages"})
        limits = {agent.name: ask.max_new_tokens for agent in graph.agents if ask.max_new_tokens}
        if not any(edge.source == system.plan.output for edge in graph.edges):
            limits[system.plan.output] = 1
        return system.run(
            [ask.other],
            rounds=ask.rounds,
            latent_steps=ask.latent_steps,
            max_new_tokens=limits or None,
            on_event=lambda event: self._check(event),
        )

    def _watch(self, event: Event) -> None:
        self._check(event)
        if isinstance(event, StepBegin):
            self._tell({"type": "step", "index": event.step, "state": "begin"})
        elif isinstance(event, StepEnd):
            seconds = {"seconds": event.seconds}
            self._tell({"type": "step", "index": event.step, "state": "end", **seconds})

    def _check(self, event: Event | None = None) -> None:
        if self._stop.is_set() and not isinstance(event, RunEnd):
            raise _StoppedError

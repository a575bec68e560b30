"""How far a training is, on stderr: a bar on a terminal, lines from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from transformers import TrainerCallback

__all__ = ["Pace", "ProgressLines"]

EVERY = 15.0
"""Minimum number of seconds between lines without a terminal."""


class Pace:
    """Loss of the last step, and target tokens: those whose prediction the loss scores."""

    def __init__(self) -> None:
        self.loss = 0.0
        """Mean over the terms of the step that runs, or ran last."""
        self._parts = 0.0
        self.restart()

    def restart(self) -> None:
        """A training begins."""
        self._began = self._marked = time.monotonic()
        self._tokens = self._unmarked = 0

    def begin_step(self, tokens: int) -> None:
        """A step of so many target tokens begins."""
        self._parts = 0.0
        self._tokens += tokens
        self._unmarked += tokens

    def add(self, loss: float) -> None:
        """A batch of the step has its share of the loss."""
        self._parts += loss
        self.loss = self._parts

    @property
    def seconds(self) -> float:
        """Since the training began."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Target tokens in a second, since the training began."""
        return self._tokens / max(self.seconds, 1e-9)

    def recent_rate(self) -> float:
        """Likewise, since the last call."""
        now = time.monotonic()
        rate = self._unmarked / max(now - self._marked, 1e-9)
        self._marked, self._unmarked = now, 0
        return rate


class ProgressLines(TrainerCallback):
    """Shows step, loss, target tokens per second and time left, and each evaluation."""

    def __init__(self, loop: str, pace: Pace) -> None:
        self._loop, self._pace = loop, pace
        self._console = Console(
            stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        self._bar: Progress | None = None
        self._first, self._said = 0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the bar, on a terminal."""
        self._first, self._said = state.global_step, time.monotonic()
        if sys.stderr.isatty() and state.is_world_process_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(f"{self._loop} loop", total=state.max_steps)
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar, or write a line when the last one is old enough."""
        if self._bar is not None:
            (task,) = self._bar.task_ids
            said = f"{self._loop} loop: {self._numbers(state)}"
            self._bar.update(task, completed=state.global_step, description=said)
        elif time.monotonic() - self._said >= EVERY:
            step = f"step {state.global_step} of {state.max_steps}"
            self._write(state, f"{self._loop} loop: {step}, {self._numbers(state)}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Write the scores."""
        found = options.get("metrics") or {}
        told = [
            f"{name} {value:.4g}"
            for name, value in found.items()
            if isinstance(value, float) and "_per_second" not in name and "_runtime" not in name
        ]
        where = f"{self._loop} loop, after step {state.global_step}"
        self._write(state, f"{where}: {', '.join(told)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away and say how it went."""
        self.close()
        pace, steps = self._pace, f"{state.global_step} of {state.max_steps} steps"
        if state.global_step == self._first:
            self._write(state, f"{self._loop} loop: {steps} were done before, none are left")
            return
        self._write(
            state,
            f"{self._loop} loop: {steps} in {_duration(pace.seconds)}, loss {pace.loss:.4g}, "
            f"{pace.rate:,.0f} target tokens/s",
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _numbers(self, state: Any) -> str:
        pace, done = self._pace, max(1, state.global_step - self._first)
        left = pace.seconds / done * (state.max_steps - state.global_step)
        rate = f"{pace.rate:,.0f} target tokens/s"
        return f"loss {pace.loss:.4g}, {rate}, {_duration(left)} left"

    def _write(self, state: Any, line: str) -> None:
        if state.is_world_process_zero:
            self._console.print(line)
            self._said = time.monotonic()


def _duration(seconds: float) -> str:
    """Such as 45 s, 3:20 min or 2:05 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"

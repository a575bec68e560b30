"""Progress on stderr: a bar where there is a terminal, lines of a training's log anywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from latentmas.cli._console import stderr_console

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from latentmas.runtime import Event, Watcher

__all__ = ["progress_bar", "run_progress", "train_progress"]


class _Rate(ProgressColumn):
    """How many are done in a second, or how many seconds one takes."""

    def render(self, task: Task) -> Text:
        """Nothing before the first is done."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """A bar on stderr, gone at the end; it draws nothing when quiet or stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=stderr_console(), transient=True, disable=hidden) as bar:
        yield bar


@contextmanager
def run_progress(*, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher for `system.run(on_event=…)` that draws the run's steps, unless quiet."""
    from latentmas.runtime import RunBegin, StepBegin, StepEnd

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("start", total=None)

        def watch(event: Event) -> None:
            if isinstance(event, RunBegin):
                bar.reset(task, total=event.samples * event.steps)
            elif isinstance(event, StepBegin):
                where = f"round {event.round} {event.agent} {event.op}"
                bar.update(task, description=f"batch {event.batch + 1} {where}")
            elif isinstance(event, StepEnd):
                bar.advance(task, event.samples)

        yield watch


@contextmanager
def train_progress() -> Iterator[TrainerCallback]:
    """A callback of `transformers` that draws the steps and prints each log entry."""
    from transformers import TrainerCallback

    with progress_bar() as bar:
        task = bar.add_task("train", total=None)

        class Progressing(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                bar.update(task, total=state.max_steps, completed=state.global_step)

            def on_log(self, args: Any, state: Any, control: Any, **options: Any) -> None:
                bar.console.print(_entry(state, options.get("logs") or {}))

        yield Progressing()


def _entry(state: Any, logs: dict[str, Any]) -> str:
    """What a person looks at; of each link, message and agent, metrics.jsonl tells."""
    told = {k: v for k, v in logs.items() if "/" not in k}
    values = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items()]
    return f"step {state.global_step}/{state.max_steps}: {', '.join(values)}"

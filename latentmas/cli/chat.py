"""Questions one after another: `latentmas run --chat`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from latentmas.cli.support.console import emit, note, stderr_console
from latentmas.errors import LatentMASError
from latentmas.plan import RunOptions

if TYPE_CHECKING:
    from latentmas.runtime import System

__all__ = ["chat", "show"]

Samples = Callable[[str], list[dict[str, Any]]]


def chat(system: System, samples: Samples, options: RunOptions) -> bool:
    """Answer each line of stdin with a run of its own; nothing is remembered between them.

    Ends at the end of stdin, or at Ctrl-C; a run that fails is reported, and the next line is read.
    On a pipe, there is one line out for each line in: a line break in an answer becomes a space,
    and the line is empty for an empty question or one that fails.

    Args:
        system: the team.
        samples: makes the sample of a question.
        options: options of each run.

    Returns:
        Whether every question was answered.
    """
    well, terminal = True, sys.stdin.isatty()
    if terminal:
        note("each question is a fresh run of the team; press Ctrl-D or Ctrl-C to end")
    with suppress(KeyboardInterrupt):
        for question in _questions():
            line = ""
            try:
                if question:
                    result = system.run(
                        samples(question), on_text=show if terminal else None, options=options
                    )
                    line = "" if terminal else " ".join(result.texts[0].splitlines())
            except LatentMASError as error:
                well = False
                stderr_console().print(f"error: {error}")
            emit(line)
    return well


def show(_: int, text: str) -> None:
    """Write a piece of an answer at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _questions() -> Iterator[str]:
    """Lines of stdin; from a terminal the lines that are not empty, with a prompt and a history."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # gives `input` its history
    with suppress(EOFError):
        while True:
            line = input("> ").strip()
            if line:
                yield line

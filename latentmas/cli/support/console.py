"""What goes where: data to stdout, notes and errors to stderr."""

from __future__ import annotations

import json
import math
import sys
import traceback
from typing import Any

from rich.console import Console
from rich.text import Text

from latentmas.errors import LatentMASError, more_about
from latentmas.redact import redact

__all__ = ["dumps", "emit", "emit_json", "note", "report", "stderr_console"]

INTERRUPTED = 130


def stderr_console() -> Console:
    """A console on stderr: no markup, no wrapping, no colour unless it is a terminal."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a note to stderr."""
    stderr_console().print(Text(text), style="dim")


def emit(text: str) -> None:
    """Write data."""
    print(text, flush=True)


def emit_json(value: Any) -> None:
    """Write one JSON object as data; numbers that JSON does not know become null."""
    emit(dumps(_finite(value), indent=2))


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON that stays readable, and can be encoded as UTF-8 whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        text = json.dumps(value, indent=indent)
    return text


def report(error: BaseException, *, debug: bool) -> int:
    """Print an error to stderr and return the exit code.

    Args:
        error: what stopped the command.
        debug: show the traceback.
    """
    if isinstance(error, KeyboardInterrupt):
        stderr_console().print(str(error) or "interrupted")
        return INTERRUPTED
    if debug:
        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        return 1
    said = _describe(error)
    stderr_console().print(Text.assemble(("error: ", "bold red"), said))
    where = more_about(said)
    if where:
        note(where)
    return 1


def _describe(error: BaseException) -> str:
    if isinstance(error, LatentMASError | OSError):
        return redact(str(error) or repr(error))
    found = redact(f"{type(error).__name__}: {' '.join(str(error).split())}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {found}; try a smaller --batch-size"
    return (
        f"{found}; this is a bug in latentmas: `latentmas --debug …` shows the traceback, "
        "please report it with the output of `latentmas env`"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

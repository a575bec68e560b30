"""Run a program in the sandbox on the inputs of a task, and read what it claims to put out."""

from __future__ import annotations

import functools
import json
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentmas.evaluation.grading.programs import inside as harness
from latentmas.evaluation.grading.programs import values as encoding
from latentmas.evaluation.grading.programs.extract import runnable
from latentmas.evaluation.grading.programs.task import Task
from latentmas.evaluation.grading.programs.values import decode
from latentmas.safe_data import parse_json
from latentmas.sandbox import MEBIBYTE, Finished, Kind, Limits, run_program

__all__ = ["UNUSED", "Bounds", "Outputs", "run_task"]

UNUSED = ...
"""Stands for the output of a test that is not used, since the correct one is too large."""

# The harness imports its values under the name that the module has here.
_PROGRAM = """
import sys, types
values = sys.modules[{name!r}] = types.ModuleType({name!r})
exec({values!r}, vars(values))
{inside}
"""
_BATCH = 8 * MEBIBYTE
"""Characters of input that one process is given; more than that, and there are several."""
_OUTPUT = 64 * MEBIBYTE
"""Bytes that one process may write."""
_MOST_VALUES = 2_500_000
"""Values in all outputs of one process."""
_MOST_ITEMS = 4 * _MOST_VALUES
"""Brackets and commas that their JSON takes, at most."""
_LONGEST_REASON = 200
_STOPPED = {"output": "output limit", "folder": "file limit", "threads": "thread limit"}


@dataclass(frozen=True)
class Bounds:
    """How programs are run."""

    kind: Kind | None
    packages: tuple[str, ...]
    seconds: float
    """Processor time of one test."""
    total_seconds: float
    memory_bytes: int

    def times(self, factor: float) -> Bounds:
        """The same with more time."""
        seconds, total = factor * self.seconds, factor * self.total_seconds
        return replace(self, seconds=seconds, total_seconds=total)

    def limits(self, seconds: float) -> Limits:
        """Limits of a process that may run that long."""
        return Limits(seconds, self.memory_bytes, _OUTPUT // 4)


@dataclass(frozen=True)
class Outputs:
    """What a program claims to put out, in the order of the tests, up to the first that failed."""

    values: tuple[Any, ...]
    problem: str = ""
    """Why there are fewer than there are tests."""
    seconds: float = 0.0
    """Time that all tests took together."""


def run_task(code: str, task: Task, bounds: Bounds, expected: Outputs | None = None) -> Outputs:
    """Run a program on all inputs, in as few processes as possible.

    Args:
        code: the program.
        task: what it is tried on.
        bounds: limits and sandbox.
        expected: what a correct solution puts out, of which only one thing is used: which tests
            are not; None if the program is the correct solution.

    Raises:
        LatentMASError: The sandbox cannot be set up.
    """
    start, values = time.monotonic(), list[Any]()
    values_expected = () if expected is None else expected.values
    unused = {number for number, value in enumerate(values_expected) if value is UNUSED}
    inputs = [None if i in unused else item for i, item in enumerate(task.inputs)]
    for batch in _batches(inputs):
        left = start + bounds.total_seconds - time.monotonic()
        order = _order(code, task, batch, bounds) | {"trusted": expected is None}
        found = _run(order, bounds, left) if left > 0 else Outputs((), "time limit")
        values += found.values
        if found.problem:
            return Outputs(tuple(values), found.problem)
    return Outputs(tuple(values), seconds=time.monotonic() - start)


def _batches(inputs: Sequence[Any]) -> Iterator[list[Any]]:
    batch, size = list[Any](), 0
    for item in inputs:
        length = len(item if isinstance(item, str) else json.dumps(item))
        if batch and size + length > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    yield batch


def _order(code: str, task: Task, inputs: list[Any], bounds: Bounds) -> dict[str, Any]:
    """The message that the harness reads."""
    return {
        "marker": secrets.token_hex(16),
        "code": code,
        "entry_point": task.entry_point,
        "prelude": task.prelude,
        "prompt": runnable(task.prompt),
        "inputs": inputs,
        "seconds": bounds.seconds,
        "most": _MOST_VALUES,
    }


def _run(order: dict[str, Any], bounds: Bounds, seconds: float) -> Outputs:
    program = f"{_harness()}\nmain({json.dumps(order)!r})\n"
    done = run_program(program, bounds.limits(seconds), bounds.kind, bounds.packages)
    return _read(done, order["marker"].encode(), len(order["inputs"]))


@functools.cache
def _harness() -> str:
    values, inside = (
        Path(str(module.__file__)).read_text(encoding="utf-8") for module in (encoding, harness)
    )
    return _PROGRAM.format(name=encoding.__name__, values=values, inside=inside)


def _read(done: Finished, marker: bytes, tests: int) -> Outputs:
    """The claims of a process: one for each test, in order; then the end, and nothing more."""
    values, left = list[Any](), _MOST_ITEMS
    for line in _lines(done.stdout, marker):
        try:
            number, what, tree = parse_json(line, most_items=left, numbers="nan")
            value = decode(tree)
        except (ValueError, TypeError, RecursionError):
            cut = done.stopped == "output"
            return Outputs(tuple(values), _ending(done) if cut else "output that cannot be read")
        left -= 0 if isinstance(tree, str) else line.count(b",")
        if what in ("value", "text", "large") and number == len(values) < tests:
            values.append(UNUSED if what == "large" else value)
        elif what == "end" and number == len(values) == tests:
            return Outputs(tuple(values))
        else:
            known = number in (harness.LOADING, len(values))
            return Outputs(tuple(values), _failure(what, value) if known else "tests out of order")
    return Outputs(tuple(values), _ending(done))


def _lines(stdout: bytes, marker: bytes) -> Iterator[bytes]:
    head = b"\n" + marker + b" "
    for part in stdout.split(head)[1:]:
        yield part.partition(b"\n")[0]


def _failure(what: Any, value: Any) -> str:
    """Why a test failed, as the harness tells it."""
    if what in ("time", "memory"):
        return f"{what} limit"
    if what == "error" and isinstance(value, str):
        told = " ".join(value.split())[:_LONGEST_REASON]
        return told.removesuffix(":") or "error"
    return "output that cannot be read"


def _ending(done: Finished) -> str:
    """Why a process ended before it had reported all tests."""
    if done.stopped == "time" or done.code == 128 + signal.SIGXCPU:
        return "time limit"
    if done.stopped is not None:
        return _STOPPED[done.stopped]
    return f"the process ended early, with exit code {done.code}"

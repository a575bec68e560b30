"""Grade programs by running them."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.programs.compare import agrees, same_lines
from latentmas.evaluation.grading.programs.extract import find_code
from latentmas.evaluation.grading.programs.run import UNUSED, Bounds, Outputs, run_task
from latentmas.evaluation.grading.programs.task import Task, read_task
from latentmas.evaluation.grading.programs.values import decode, encode
from latentmas.sandbox import KINDS, MEBIBYTE, Kind, find_packages, refusal, sandbox_kind, working

__all__ = ["Code", "encode_values"]

_SLACK = 3.0
"""A correct solution may take so many times the limits to compute the expected outputs, and a
program so many times what that took, if the limits are less."""
_KEPT = 2048
"""Tasks whose expected outputs are kept."""


def encode_values(values: Sequence[Any]) -> str:
    """A text for values that JSON does not have, as `inputs`, `outputs` and `also` of `tests`.

    Tuples, sets, complex numbers, bytes, infinite numbers and large integers are kept as they are.

    Args:
        values: a list of values.
    """
    return json.dumps(encode(list(values)), separators=(",", ":"))


@graders.register("code")
class Code(Grader):
    """Whether a program passes all tests of its row.

    The program is run in the sandbox of the tool `python`, and outputs are compared outside of it:
    it never sees what is expected, so the only way to pass is to put out what is right. The field
    `tests` of a row has one of two forms:

    - for a function, `entry_point` (its name), `inputs` (a list of arguments for each test) and
      `outputs`; without `outputs`, the correct answer of the row is a solution, which is run to
      compute them. `atol` is an absolute tolerance, `prelude` is Python that runs first, and
      `prompt` is the head of the function, which the text may continue.
    - for a program, `stdin` and `stdout`, a text for each test.
    """

    needs = ("tests",)

    def __init__(
        self,
        *,
        seconds: float = 6.0,
        total_seconds: float = 60.0,
        memory_bytes: int = 4096 * MEBIBYTE,
        packages: Sequence[str] = ("numpy",),
        kind: Kind | None = None,
        unsafe: bool = False,
    ) -> None:
        """Make sure that programs can be run.

        Args:
            seconds: Limit on the processor time of one test.
            total_seconds: Limit on the time of all tests of one program. Both limits are raised
                where a correct solution is run that takes more than a third of it.
            memory_bytes: Limit on the address space; at least 64 MiB.
            packages: Installed packages that programs may import, by their pip names.
            kind: `"bubblewrap"` or `"landlock"`. None: the strongest that works.
            unsafe: Run without a sandbox if none is available. A program can then read and change
                any file that you can.

        Raises:
            LatentMASError: A limit is out of range, a package is not installed, or no sandbox
                works on this machine and `unsafe` is not set.
        """
        if kind is not None and kind not in KINDS:
            raise LatentMASError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if isinstance(packages, str):
            raise LatentMASError(f"packages must be a list of names, such as [{packages!r}]")
        if not 0 < seconds < math.inf:
            raise LatentMASError(f"seconds must be above 0 and finite, not {seconds!r}")
        found = sandbox_kind() if kind is None else working(kind)
        if found is None and not unsafe:
            raise LatentMASError(refusal(kind, unsafe="the option unsafe=True of the grader"))
        find_packages(tuple(packages))
        self._bounds = Bounds(found, tuple(packages), seconds, total_seconds, memory_bytes)
        self._bounds.limits(total_seconds)
        self._expected: OrderedDict[str, Outputs] = OrderedDict()
        self._lock = threading.Lock()

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by the program in it.

        Args:
            text: generated text, with the program in a block or as a whole.
            gold: correct solution, where the tests hold no outputs.
            row: row with the field `tests`.

        Raises:
            LatentMASError: The sandbox cannot be set up; this says nothing of the text.
        """
        try:
            task = read_task(gold, row)
        except DataError as error:
            return Grade(False, None, f"the tests cannot be used: {error}")
        code = find_code(text, task.entry_point, task.prompt)
        if code is None:
            return Grade(False, None, "no code found")
        expected = self._outputs(task)
        if expected.problem:
            return Grade(False, code, f"the correct solution fails: {expected.problem}")
        slow = _SLACK * expected.seconds / self._bounds.total_seconds
        found = run_task(code, task, self._bounds.times(max(1.0, slow)), expected)
        reason = _verdict(task, found, expected)
        return Grade(reason == "passed", code, reason)

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why no program can be graded on this row: its tests, or its correct solution."""
        try:
            expected = self._outputs(read_task(gold, row))
        except DataError as error:
            return f"the tests cannot be used: {error}"
        return f"the correct solution fails: {expected.problem}" if expected.problem else None

    def close(self) -> None:
        """Forget the outputs of correct solutions."""
        with self._lock:
            self._expected.clear()

    def _outputs(self, task: Task) -> Outputs:
        """Expected outputs, of the data or of the correct solution, which is run once."""
        if task.outputs is not None:
            return Outputs(task.outputs)
        parts = [task.solution, task.entry_point, task.prelude, task.prompt, task.inputs]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        with self._lock:
            kept = self._expected.get(key)
        if kept is not None:
            return kept
        found = run_task(task.solution, task, self._bounds.times(_SLACK))
        if found.problem:  # perhaps only because the machine is busy
            return found
        if all(value is UNUSED for value in found.values):
            return Outputs((), "all of its outputs are too large")
        with self._lock:
            self._expected[key] = found
            while len(self._expected) > _KEPT:
                self._expected.popitem(last=False)
        return found


def _verdict(task: Task, found: Outputs, expected: Outputs) -> str:
    """Why a program passes, or does not."""
    for number, value in enumerate(found.values):
        if not _right(task, number, value, expected.values[number]):
            return f"wrong output in test {number + 1}"
    return found.problem or "passed"


def _right(task: Task, number: int, value: Any, expected: Any) -> bool:
    if expected is UNUSED:
        return True
    if not task.entry_point:
        return isinstance(value, str) and same_lines(value, expected)
    arguments = decode(task.inputs[number])
    accepted = [expected] if task.also is None else [expected, task.also[number]]
    return any(agrees(task.compare, value, one, task.atol, arguments) for one in accepted)

"""What runs beside a program under test: calls it and writes down what comes out, nothing more.

The text of this module is run in the sandbox, with a call of `main` appended, and only there; so it
uses the standard library and the module of values alone. No expected output ever reaches it:
whatever a program does to it can only change which outputs are claimed.
"""

import atexit
import builtins
import contextlib
import json
import os
import signal
import sys
import threading
import types
from typing import Any

from latentmas.evaluation.grading.programs.values import Budget, TooLargeError, decode, encode

LOADING = -1
"""Stands for the number of a test while the program itself is loaded."""
LONGEST_ERROR = 1000


class Harness:
    """Runs all tests of one order, and reports after each of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order, self.number = order, LOADING
        self.budget = Budget(order["most"])
        self.output = os.dup(1)  # the program's own prints go elsewhere

    def report(self, what: str, value: Any = None) -> None:
        """Write one line: the run's marker, the number of the test, what happened, a value."""
        line = json.dumps([self.number, what, value])
        data = f"\n{self.order['marker']} {line}\n".encode()
        while data:
            data = data[os.write(self.output, data) :]

    def fail(self, error: BaseException) -> None:
        """Report an exception that the program raised."""
        try:
            told = str(error)
        except BaseException:
            told = ""
        kind = "memory" if isinstance(error, MemoryError) else "error"
        self.report(kind, f"{type(error).__name__}: {told}"[:LONGEST_ERROR])

    def begin(self) -> None:
        """Start the clock of one test, or of loading.

        It counts processor time, so that a busy machine does not make a program fail. One that
        waits is ended from outside.
        """
        signal.signal(signal.SIGPROF, self.expire)
        signal.setitimer(signal.ITIMER_PROF, self.order["seconds"])

    def end(self) -> None:
        """Stop the clock."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def expire(self, *_: Any) -> None:
        """Leave at once: an exception raised here could be caught by the program."""
        self.report("time")
        os._exit(0)

    def load(self, name: str) -> dict[str, Any]:
        """Run the program as a module, and return the module's names."""
        module = types.ModuleType(name)
        sys.modules[name] = module
        names = module.__dict__
        for part in ("prelude", "prompt"):
            exec(compile(self.order[part], f"<{part}>", "exec", dont_inherit=True), names)
        names.pop(self.order["entry_point"], None)  # a prompt may hold the head of the function
        exec(compile(self.order["code"], "<program>", "exec", dont_inherit=True), names)
        return names

    def function(self) -> Any:
        """Find the function in the class `Solution` or, failing that, in the module."""
        names, name = self.load("solution"), self.order["entry_point"]
        owner = names.get("Solution")
        if isinstance(owner, type) and hasattr(owner, name):
            return getattr(owner(), name)
        if name not in names:
            raise NameError(f"the function {name!r} is not defined")
        return names[name]

    def run_functions(self) -> None:
        """Call the function with each input."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        self.begin()
        function = self.function()
        self.end()
        for number, tree in enumerate(self.order["inputs"]):
            self.number = number
            if tree is None:  # the correct output of this test is too large
                self.report("large")
                continue
            arguments = decode(tree)
            self.begin()
            value = function(*arguments)
            self.end()
            self.report_value(value)

    def report_value(self, value: Any) -> None:
        """Report an output; of a correct solution, that it is too large as well."""
        left = self.budget.left
        try:
            tree = encode(value, self.budget)
        except TooLargeError:
            if not self.order["trusted"]:
                raise
            self.budget.left = left
            self.report("large")
        else:
            self.report("value", tree)

    def run_programs(self) -> None:
        """Run the whole program once for each standard input."""
        nothing = os.open(os.devnull, os.O_RDWR)
        builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
        for number, text in enumerate(self.order["inputs"]):
            self.number = number
            # A program that reads `open(0)` closes it, and the next file would take its place.
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            with open("input", "w", encoding="utf-8", newline="") as file:  # noqa: PTH123
                file.write(text)
            with open("input", "rb") as source, open("output", "w+b") as target:  # noqa: PTH123
                os.dup2(source.fileno(), 0)
                os.dup2(target.fileno(), 1)
                self.begin()
                self.run_program()
                self.end()
                target.seek(0)
                self.report("text", target.read().decode("utf-8", "replace"))

    def run_program(self) -> None:
        """Run it with streams of its own, as if it had just started."""
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = out = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        vars(sys).update(__stdin__=sys.stdin, __stdout__=out)
        with contextlib.suppress(SystemExit):
            self.load("__main__")
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, out):
            if not stream.closed:
                stream.flush()

    def run(self) -> None:
        """Run all tests, and report the end."""
        try:
            self.run_functions() if self.order["entry_point"] else self.run_programs()
            self.number += 1
            self.report("end")
        except BaseException as error:
            self.end()
            self.fail(error)
        os._exit(0)  # threads of the program may still run


def main(order: str) -> None:
    """Run the tests of an order, given as JSON."""
    Harness(json.loads(order)).run()

"""The tests of a row, read and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentmas.errors import DataError
from latentmas.evaluation.grading.programs.compare import RULES
from latentmas.evaluation.grading.programs.packed import read_cases
from latentmas.evaluation.grading.programs.values import decode, encode

__all__ = ["Task", "read_task"]

_FIELDS = (
    *("entry_point", "inputs", "outputs", "also", "atol", "compare", "prompt", "prelude"),
    *("stdin", "stdout", "public_tests", "private_tests"),
)


@dataclass(frozen=True)
class Task:
    """What a program is tried on."""

    inputs: tuple[Any, ...]
    """Encoded arguments of the function or, without one, texts of standard input."""
    outputs: tuple[Any, ...] | None
    """Expected outputs; None if those of `solution` are expected."""
    solution: str = ""
    entry_point: str = ""
    """Name of the function; empty for a program that reads standard input."""
    also: tuple[Any, ...] | None = None
    """For each input, another output that is right."""
    prompt: str = ""
    """Head of the function, which the program may continue."""
    prelude: str = ""
    """Python that runs before the program."""
    atol: float = 0.0
    compare: str = "equal"


def read_task(gold: Any, row: Mapping[str, Any]) -> Task:
    """The task of a row.

    Args:
        gold: correct solution; it is used where the tests hold no outputs.
        row: row with the field `tests`.

    Raises:
        DataError: The tests are missing or malformed.
    """
    tests = row.get("tests")
    if not isinstance(tests, Mapping):
        raise DataError("the row has no field `tests` that holds an object")
    for name in tests:
        if name not in _FIELDS:
            raise DataError(f"`tests` has an unknown field {name!r}; known: {', '.join(_FIELDS)}")
    texts: dict[str, Any] = {
        name: tests.get(name) or "" for name in ("entry_point", "prompt", "prelude")
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f"`{name}` is a text, not a {type(text).__name__}")
    if "public_tests" in tests or "private_tests" in tests:
        return _packed(tests, texts)
    if texts["entry_point"]:
        return _functions(gold, tests, texts)
    return _programs(tests, texts)


def _functions(gold: Any, tests: Mapping[str, Any], texts: Mapping[str, Any]) -> Task:
    inputs = _values(tests, "inputs")
    if not inputs or not all(isinstance(arguments, list | tuple) for arguments in inputs):
        raise DataError("`inputs` holds at least one list of arguments")
    outputs = _values(tests, "outputs") if "outputs" in tests else None
    also = _values(tests, "also") if "also" in tests else None
    for name, values in (("outputs", outputs), ("also", also)):
        if values is not None and len(values) != len(inputs):
            raise DataError(f"`{name}` has {len(values)} values for {len(inputs)} inputs")
    if outputs is None and not (isinstance(gold, str) and gold.strip()):
        raise DataError("there are neither `outputs` nor a correct solution as the answer")
    atol, rule = tests.get("atol", 0.0), tests.get("compare", "equal")
    if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol < math.inf:
        raise DataError(f"`atol` is a number of at least 0, not {atol!r:.40}")
    if rule not in RULES:
        raise DataError(f"`compare` is one of {', '.join(RULES)}, not {rule!r:.40}")
    solution = gold if outputs is None else ""
    trees = tuple(encode(list(arguments)) for arguments in inputs)
    return Task(trees, outputs, solution, also=also, atol=float(atol), compare=rule, **texts)


def _values(tests: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """A list of values, as JSON has them or, in a text, as `encode` writes them."""
    values = tests.get(name)
    if isinstance(values, str):
        try:
            values = decode(json.loads(values))
        except (ValueError, RecursionError) as error:
            raise DataError(f"`{name}` cannot be read: {error!s:.200}") from error
    if not isinstance(values, list | tuple):
        raise DataError(f"`{name}` is a list, not a {type(values).__name__}")
    return tuple(values)


def _programs(tests: Mapping[str, Any], texts: Mapping[str, Any]) -> Task:
    given, printed = (tests.get(name) for name in ("stdin", "stdout"))
    for name, values in (("stdin", given), ("stdout", printed)):
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
            raise DataError(f"`tests` needs `entry_point` and `inputs`, or texts as `{name}`")
    assert given is not None and printed is not None
    if not given or len(given) != len(printed):
        raise DataError(f"there are {len(given)} texts as `stdin` and {len(printed)} as `stdout`")
    return Task(tuple(given), tuple(printed), **texts)


def _packed(tests: Mapping[str, Any], texts: Mapping[str, Any]) -> Task:
    """A task of LiveCodeBench: one JSON value a line is an argument."""
    packed = [tests[name] for name in ("public_tests", "private_tests") if tests.get(name)]
    cases = [case for text in packed for case in read_cases(text)]
    if not cases:
        raise DataError("there are no test cases")
    given, expected = ([case[name] for case in cases] for name in ("input", "output"))
    if not texts["entry_point"]:
        return Task(tuple(given), tuple(expected), **texts)
    try:
        arguments = [[json.loads(line) for line in text.split("\n")] for text in given]
        outputs = tuple(json.loads(text) for text in expected)
    except (ValueError, RecursionError) as error:
        raise DataError(f"a test case is not JSON: {error!s:.200}") from error
    return Task(tuple(map(encode, arguments)), outputs, compare="exact", **texts)

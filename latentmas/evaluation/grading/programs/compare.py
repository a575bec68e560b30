"""Whether an output is the expected one. Everything here runs outside the sandbox, on plain values.

The rules are those of the published checkers: EvalPlus's for functions (plain equality, a tolerance
for floats, and a few tasks where equality would be wrong), LiveCodeBench's for what programs print.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, DecimalException
from typing import Any

from latentmas.evaluation.grading.programs.values import Array, spread

__all__ = ["RULES", "agrees", "same_lines"]

_RELATIVE = 1e-7
_FLOATS = 1e-6
"""Absolute tolerance for floats where the data gives none."""

Rule = Callable[[Any, Any, float, Sequence[Any]], bool]


def agrees(rule: str, found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """Whether an output of a function is right.

    Args:
        rule: name of a rule in `RULES`.
        found: the output, as the program under test claims it.
        expected: output of a correct solution.
        atol: absolute tolerance; 0 for the rule's own.
        arguments: what the function was given.
    """
    try:
        return RULES[rule](found, expected, atol, arguments)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        return False


def same_lines(found: str, expected: str) -> bool:
    """Whether two printed texts agree line by line, as texts or as decimal numbers.

    Space around lines, and empty lines at both ends, do not count.
    """
    lines, wanted = ([line.strip() for line in t.strip().split("\n")] for t in (found, expected))
    pairs = zip(lines, wanted, strict=False)
    return len(lines) == len(wanted) and all(a == b or _same_numbers(a, b) for a, b in pairs)


def _same_numbers(found: str, expected: str) -> bool:
    try:
        one, other = ([Decimal(word) for word in line.split()] for line in (found, expected))
        return one == other
    except DecimalException:
        return False


def _equal(found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """Equal in Python or, where outputs are floats or a tolerance is given, nearly equal."""
    if found == expected:
        return True
    tolerance = atol or (_FLOATS if _is_floats(expected) else 0.0)
    return tolerance > 0 and type(found) is type(expected) and _close(found, expected, tolerance)


def _is_floats(value: Any) -> bool:
    if isinstance(value, Array):
        return value.dtype[1:] in ("f4", "f8")
    items = value if isinstance(value, list | tuple) else [value]
    return bool(items) and all(isinstance(item, float) for item in items)


def _close(found: Any, expected: Any, atol: float) -> bool:
    if isinstance(expected, Array):
        return found.shape == expected.shape and _close(found.items, expected.items, atol)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(
            _close(one, other, atol) for one, other in zip(found, expected, strict=True)
        )
    if cmath.isnan(expected) or cmath.isinf(expected):
        return found == expected or (cmath.isnan(expected) and cmath.isnan(found))
    return bool(abs(found - expected) <= atol + _RELATIVE * abs(expected))


def _exact(found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """Equal in Python, with no tolerance; a tuple may stand for a list."""
    return bool((list(found) if isinstance(found, tuple) else found) == expected)


def _same_set(found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """The same elements, in any order and any number."""
    return set(spread(list(found))) == set(expected)


def _both_none(found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """Both None, or neither; true and false stand for the two cases."""
    one, other = (v if isinstance(v, bool) else v is not None for v in (found, expected))
    return one == other


def _root(found: Any, expected: Any, atol: float, arguments: Sequence[Any]) -> bool:
    """A root of the polynomial whose coefficients, lowest power first, are the argument."""
    terms = (factor * math.pow(found, power) for power, factor in enumerate(arguments[0]))
    return abs(sum(terms)) <= atol


RULES: dict[str, Rule] = {
    "equal": _equal,
    "exact": _exact,
    "none": _both_none,
    "root": _root,
    "set": _same_set,
}
"""How outputs are compared, by the name that the data gives."""

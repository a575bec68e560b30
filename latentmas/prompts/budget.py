"""Limits on the cost of one rendering: steps, bytes of text produced, and the size of a value.

An untrusted template may contain a loop of a billion iterations, produce a billion characters, or
build a small value that grows on every access. So every operation is charged to the budget of the
rendering before it runs (`environment` inserts the charges). Budgets are per rendering and per
thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

__all__ = ["CONTAINERS", "MOST_BITS", "Budget", "OverBudgetError", "budget", "rendering", "size_of"]

STEPS = 500_000
"""Maximum number of operations, counting each iteration of a loop; a fraction of a second."""
STEPS_PER_LETTER = 500
BYTES = 16 * 2**20
"""Maximum number of bytes of text produced, including intermediate results."""
BYTES_PER_LETTER = 4_000
LONGEST = 2 * 2**20
"""Maximum number of bytes of one string."""
LONGEST_PER_LETTER = 16
BLOCK = 64
"""Bytes of text that count as one step."""
MOST_BITS = 4096
"""Maximum number of bits of an integer."""

_PLAIN = frozenset({bool, float, type(None)})
_VIEWS: tuple[type[Any], ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: tuple[type[Any], ...] = (list, tuple, set, frozenset, *_VIEWS)


class OverBudgetError(SecurityError):
    """A template exceeds the budget of a prompt."""


class Budget:
    """Remaining budget of one rendering; it grows with the sample, whose text is the user's own."""

    def __init__(self, given: Iterable[Any] = ()) -> None:
        letters = size_of(given)
        self.steps = self.most_steps = STEPS + STEPS_PER_LETTER * letters
        self.bytes = self.most_bytes = BYTES + BYTES_PER_LETTER * letters
        self.longest = LONGEST + LONGEST_PER_LETTER * letters

    def spend(self, steps: int) -> None:
        """Charge for operations.

        Raises:
            OverBudgetError: The remaining budget is too small.
        """
        self.steps -= max(steps, 0)
        if self.steps < 0:
            raise OverBudgetError(
                "the template asks for more work than a prompt may: its loops, calls and texts "
                f"come to over {self.most_steps:,} steps; make it simpler"
            )

    def make(self, size: int) -> None:
        """Charge for a string of this many bytes before it is created."""
        if size > self.longest:
            raise OverBudgetError(
                f"the template makes a text of over {self.longest:,} bytes; make it shorter"
            )
        self.bytes -= max(size, 0)
        if self.bytes < 0:
            raise OverBudgetError(
                f"the template makes over {self.most_bytes:,} bytes of text; make it simpler"
            )
        self.spend(1 + size // BLOCK)

    def look(self, value: Any) -> None:
        """Charge for reading a whole value: one step per item and per block of text."""
        kind = type(value)
        if kind is str or kind is bytes:
            self.spend(1 + len(value) // BLOCK)
        else:
            self._look_inside([value])

    def _look_inside(self, stack: list[Any]) -> None:
        steps, most = 0, self.steps
        while stack:
            item = stack.pop()
            kind = type(item)
            steps += 1
            if kind is str or kind is bytes:
                steps += len(item) // BLOCK
            elif kind is int:
                if item.bit_length() > MOST_BITS:
                    raise OverBudgetError(f"the template makes an integer of over {MOST_BITS} bits")
            elif kind not in _PLAIN:
                below, more = _inside(item)
                steps += more
                stack.extend(below)
            if steps > most:
                break
        self.spend(steps)

    def charge(self, value: Any) -> Any:
        """Charge for a newly created value and return it."""
        if isinstance(value, str | bytes):
            self.make(sys.getsizeof(value))
        else:
            self.look(value)
        return value


def _inside(item: Any) -> tuple[Iterable[Any], int]:
    """The items of a container, and the number of steps that iterating over it takes."""
    if isinstance(item, str | bytes):  # covers subclasses, such as Markup
        return (), len(item) // BLOCK
    if isinstance(item, dict):
        return [*item.keys(), *item.values()], 2
    if isinstance(item, CONTAINERS):
        return item, 2
    if isinstance(item, range):
        return (), len(item)
    if isinstance(item, Namespace):
        held: Mapping[str, Any] = object.__getattribute__(item, "_Namespace__attrs")
        return held.values(), 8
    return (), 1


def size_of(given: Iterable[Any], most: int = 10**7) -> int:
    """Number of characters of the values; a number or an item of a container counts as one."""
    total, stack = 0, list(given)
    while stack and total < most:
        item = stack.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        else:
            total += 1
            stack.extend(_inside(item)[0])
    return total


_BUDGET: ContextVar[Budget | None] = ContextVar("latentmas_budget", default=None)


def budget() -> Budget:
    """The budget of the current rendering; outside of one, the budget of an empty sample."""
    return _BUDGET.get() or Budget()


@contextmanager
def rendering(given: Iterable[Any]) -> Iterator[Budget]:
    """Context of one rendering with these values."""
    token = _BUDGET.set(Budget(given))
    try:
        yield budget()
    finally:
        _BUDGET.reset(token)

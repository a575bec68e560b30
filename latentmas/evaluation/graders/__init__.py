"""Graders by name: judges of one answer each.

A grader is a file in this package, an entry point in the group `latentmas.evaluation.graders`, or a
class registered with `graders.register`. A function of the text and the correct answer serves as a
grader too, wherever one is expected.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any

from latentmas.errors import LatentMASError, unexpected_keyword
from latentmas.registry import Registry

__all__ = ["Grade", "Grader", "GraderFunction", "graders", "open_grader"]

Row = Mapping[str, Any]
GraderFunction = Callable[[str, Any], bool]
"""Function of a generated text and the correct answer that returns whether they agree."""


@dataclass(frozen=True)
class Grade:
    """Verdict on one generated text."""

    right: bool
    """Whether the text is correct."""
    answer: str | None = None
    """Answer that was found in the text; None if there is none."""
    reason: str = ""
    """Why, in a few words: `"equal"`, `"different"`, `"no answer found"`, `"time limit"`."""
    partial: float | None = None
    """Score from 0 to 1 of a grader that gives part marks; None if the score is `right`."""

    @property
    def score(self) -> float:
        """Score of the text, 0 to 1."""
        return float(self.right) if self.partial is None else self.partial


class Grader(ABC):
    """Judge of generated texts. Options are keyword arguments of its constructor.

    Graders are called from several threads at once. They refuse no text, however malformed: a text
    that cannot be read is wrong, and the reason says why.
    """

    name: str = ""
    """Name under which results are reported; by default, the registered name."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Options that it was made with by name; they belong to the settings of an evaluation."""
    needs: tuple[str, ...] = ()
    """Fields of a row that `grade` reads besides the correct answer."""

    @abstractmethod
    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text.

        Args:
            text: generated text.
            gold: correct answer, as the data has it: a text, a number, or a list of texts any of
                which is correct.
            row: the row of the data, with further fields.
        """

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why no text can be graded against this correct answer; None if all is well."""
        return None

    def vote(self, grade: Grade, others: list[Grade]) -> int | None:
        """Number of the first of `others` that gives the same answer, for majority votes.

        None if there is none. By default, answers are the same if their texts are.
        """
        same = (i for i, other in enumerate(others) if other.answer == grade.answer)
        return next(same, None)

    def close(self) -> None:  # noqa: B027 - most graders hold nothing
        """Free processes and connections. A closed grader may be used again."""

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


graders: Registry[type[Grader] | GraderFunction] = Registry(
    "grader", "latentmas.evaluation.graders"
)
"""Every grader by name: a class, or a function."""


class _Function(Grader):
    """A function as a grader."""

    def __init__(self, function: GraderFunction) -> None:
        self.name = getattr(function, "__name__", "grader")
        self._function = function

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        found = self._function(text, gold)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return Grade(bool(found))
        if not (isfinite(found) and 0 <= found <= 1):
            raise ValueError(f"{self.name} returned {found}; a score is from 0 to 1")
        return Grade(found == 1, partial=float(found))


def open_grader(grader: str | Grader | GraderFunction, **options: Any) -> Grader:
    """A grader to use, from its name, itself, or a function.

    Args:
        grader: registered name, a grader, or a function of the text and the correct answer that
            returns a bool, or a score from 0 to 1.
        **options: options of a named grader.

    Raises:
        UnknownNameError: the name is unknown.
        TypeError: the grader has no such option, or has been made already.
        LatentMASError: it is neither a name, a grader nor a function.
    """
    if isinstance(grader, str):
        return _named(grader, options)
    if options:
        raise TypeError(f"options {', '.join(options)} belong to a grader that is given by name")
    if isinstance(grader, Grader):
        return grader
    if callable(grader) and not isinstance(grader, type):
        return _Function(grader)
    raise LatentMASError(
        f"grader is a {type(grader).__name__}; give a name such as 'math', a Grader, or a function"
    )


def _named(name: str, options: Mapping[str, Any]) -> Grader:
    """A registered grader, made with these options."""
    kind = graders.get(name)
    known = list(inspect.signature(kind).parameters) if isinstance(kind, type) else []
    for option in options:
        if option not in known:
            raise unexpected_keyword(f"grader {name!r}", option, known)
    made = kind(**options) if isinstance(kind, type) else _Function(kind)
    made.name, made.options = name, dict(options)
    return made

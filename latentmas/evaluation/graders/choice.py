"""Grade multiple-choice answers by their letter."""

from __future__ import annotations

import re
from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.graders._boxed import boxed, unwrapped

__all__ = ["Choice", "letter"]

_ALONE = re.compile(r"[\s(*]*([A-Z])(?:[\s).:*]|$)")
_NAMED = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*(?i:option\s+)?[(*]*([A-Z])(?![A-Za-z'])"
)


@graders.register("choice")
class Choice(Grader):
    r"""Whether a text chooses the right option, by its letter from A to Z.

    A text's letter is taken from its last `\boxed{…}`; failing that, from after its last "answer",
    "option" or "choice"; failing that, from its beginning. A text without a letter is wrong.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by its letter."""
        found = letter(text)
        if found is None:
            return Grade(False, None, "no letter found")
        right = found == letter(str(gold))
        return Grade(right, found, "equal" if right else "different")

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why the correct answer names no option."""
        return None if letter(str(gold)) else f"{str(gold)!r} names no option from A to Z"


def letter(text: str) -> str | None:
    """The letter, A to Z, of the option that a text chooses; None if there is none."""
    inside = boxed(text)
    if inside is not None:
        match = _ALONE.match(unwrapped(inside))
        return match[1] if match else None
    named = _NAMED.findall(text)
    if named:
        return str(named[-1])
    match = _ALONE.match(text)
    return match[1] if match else None

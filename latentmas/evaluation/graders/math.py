"""Grade results of calculations."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.graders._boxed import boxed, unwrapped

__all__ = ["Math"]

_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@graders.register("math")
class Math(Grader):
    r"""Whether both are the same number or, ignoring spaces, the same text.

    The content of the last `\boxed{…}` is compared, or the whole text if there is none. Integers,
    decimals, fractions and percentages are compared exactly: 0.5, 1/2 and `\frac{1}{2}` agree, 0.33
    and 1/3 do not. Expressions are not evaluated or rearranged: `x + 1` and `1 + x` differ.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by its result."""
        one, other = _result(text), _result(str(gold))
        if not one or not other:
            return Grade(False, one or None, "no answer found")
        numbers = _number(one), _number(other)
        right = numbers[0] == numbers[1] if None not in numbers else one == other
        return Grade(right, one, "equal" if right else "different")


def _result(text: str) -> str:
    inside = boxed(text)
    plain = unwrapped(text if inside is None else inside)
    plain = plain.replace("\\left", "").replace("\\right", "").replace("\\!", "")
    plain = plain.replace("\\,", "").replace("\\$", "").replace("$", "").replace("\\%", "%")
    return re.sub(r"\s+", "", _THOUSANDS.sub("", plain))


def _number(text: str) -> Fraction | None:
    percent = text.endswith("%")
    text = _FRACTION.sub(r"\g<1>\2/\3", text.removesuffix("%"))
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value / 100 if percent else value

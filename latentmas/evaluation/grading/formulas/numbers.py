"""Read numbers exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Number", "number"]

_DIGITS = r"(?:\d+\.?\d*|\.\d+)"
_SIGNED = rf"[+-]?{_DIGITS}"
_FORMS = (
    re.compile(rf"(?P<top>{_DIGITS})(?:/(?P<bottom>{_DIGITS}))?"),
    re.compile(rf"\\frac\{{\s*(?P<top>{_SIGNED})\s*\}}\{{\s*(?P<bottom>{_SIGNED})\s*\}}"),
    re.compile(r"(?P<whole>\d+) ?\\frac\{(?P<top>\d+)\}\{(?P<bottom>\d+)\}"),
    re.compile(r"(?P<whole>\d+) (?P<top>\d+)/(?P<bottom>\d+)"),
    re.compile(rf"(?P<top>{_DIGITS})[eE](?P<power>[+-]?\d{{1,3}})"),
    re.compile(
        rf"(?P<top>{_DIGITS}) ?(?:\\times|\\cdot|[*x]) ?10\^(?:\{{(?P<power>[+-]?\d{{1,3}})\}}|"
        r"(?P<digit>\d))"
    ),
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_LONGEST = 1000
"""Characters of a number; reading takes quadratic time."""


@dataclass(frozen=True)
class Number:
    """A rational number, and whether it was written with a percent sign."""

    value: Fraction
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Whether both are equal; 50 % is 50 as well as 1/2, since data have either."""
        if self.percent == other.percent:
            return self.value == other.value
        share, plain = (self, other) if self.percent else (other, self)
        return plain.value in (share.value, share.value / 100)


def number(text: str) -> Number | None:
    """The number that a tidied text is, exactly; None if it is something else."""
    if len(text) > _LONGEST or not text.isascii():
        return None
    text, _, scale = text.rpartition(" ") if text.endswith(tuple(_SCALES)) else (text, "", "")
    percent = text.endswith("%")
    text = text.removesuffix("%").strip()
    sign = -1 if text.startswith("-") else 1
    text = text[1:].lstrip() if text.startswith(("-", "+")) else text
    value = _unsigned(text)
    if value is None or scale not in ("", *_SCALES):
        return None
    return Number(sign * value * _SCALES.get(scale, 1), percent)


def _unsigned(text: str) -> Fraction | None:
    match = next(filter(None, (form.fullmatch(text) for form in _FORMS)), None)
    if match is None:
        return None
    parts = {name: part for name, part in match.groupdict().items() if part}
    top, bottom = Fraction(parts["top"]), Fraction(parts.get("bottom", "1"))
    if bottom == 0 or ("whole" in parts and not top < bottom):
        return None
    value = Fraction(parts.get("whole", "0")) + top / bottom
    return value * Fraction(10) ** int(parts.get("power") or parts.get("digit") or "0")

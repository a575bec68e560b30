"""Grade multiple-choice answers by their letter."""

from __future__ import annotations

import re

from latentmas.evaluation.metrics import metrics
from latentmas.evaluation.metrics._boxed import boxed, unwrapped

__all__ = ["choice", "letter"]

_ALONE = re.compile(r"[\s(*]*([A-Z])(?:[\s).:*]|$)")
_NAMED = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*(?i:option\s+)?[(*]*([A-Z])(?![A-Za-z'])"
)


@metrics.register("choice")
def choice(written: str, right: str) -> bool:
    r"""Whether both choose the same letter from A to Z.

    A text's letter is taken from its last `\boxed{…}`; failing that, from after its last "answer",
    "option" or "choice"; failing that, from its beginning. A text without a letter is wrong.
    """
    found = letter(written)
    return found is not None and found == letter(right)


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

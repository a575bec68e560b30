"""Letters of options."""

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
    r"""The same letter A to Z.

    A text's letter is in its last `\boxed{…}`, else behind its last "answer", "option" or
    "choice", else at its beginning. A text without a letter is wrong: nothing is guessed.
    """
    found = letter(written)
    return found is not None and found == letter(right)


def letter(text: str) -> str | None:
    """The option that a text chooses, A to Z; None without one."""
    inside = boxed(text)
    if inside is not None:
        match = _ALONE.match(unwrapped(inside))
        return match[1] if match else None
    named = _NAMED.findall(text)
    if named:
        return str(named[-1])
    match = _ALONE.match(text)
    return match[1] if match else None

"""Correct answers as data sets have them."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.grading.texts.words import words

__all__ = ["accepted", "wordless"]


def accepted(gold: Any) -> list[str]:
    """The texts any of which is a correct answer: the items of a list, or a single value."""
    return [str(one) for one in gold] if isinstance(gold, list | tuple) else [str(gold)]


def wordless(gold: Any) -> str | None:
    """Why no words can be compared with a correct answer; None if there are some."""
    texts = accepted(gold)
    if not texts:
        return "the list of correct answers is empty"
    empty = next((one for one in texts if not words(one)), None)
    return None if empty is None else f"{empty!r} has no words"

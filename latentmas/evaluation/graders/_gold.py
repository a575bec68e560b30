"""Correct answers as data sets have them."""

from __future__ import annotations

from typing import Any

__all__ = ["accepted"]


def accepted(gold: Any) -> list[str]:
    """The texts any of which is a correct answer: the items of a list, or a single value."""
    return [str(one) for one in gold] if isinstance(gold, list | tuple) else [str(gold)]

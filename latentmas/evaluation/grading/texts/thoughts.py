"""Leave out what a model thought before it answered."""

from __future__ import annotations

import re

__all__ = ["after_thoughts"]

_OPEN, _CLOSE = "<think>", "</think>"


def after_thoughts(text: str) -> str:
    """The text after the last `</think>`; before an unclosed `<think>`, nothing was answered yet.

    A text without these tags is returned unchanged.
    """
    kept = text.rpartition(_CLOSE)[2]
    return re.split(re.escape(_OPEN), kept, maxsplit=1)[0] if _OPEN in kept else kept

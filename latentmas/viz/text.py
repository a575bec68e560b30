"""How much room a text takes: estimates that no common font exceeds."""

from __future__ import annotations

import unicodedata

__all__ = ["length", "shorten"]

# Advances of DejaVu Sans, the widest of the fonts that drawings ask for, rounded up, in ems.
_ADVANCES = (
    (" 'ijl,.·:;/|\\fI-()[]t!rJ", 0.43, 0.51),
    ('_*`szxvyckeaoTFLPEYK?"', 0.67, 0.73),
    ("$0123456789bdghnpquABVXZSCR{}", 0.71, 0.80),
    ("UNHD&GOQw#+<=>^~→←×", 0.85, 0.94),
)
_PLAIN = {c: (thin, bold) for text, thin, bold in _ADVANCES for c in text}
_WIDE = (1.1, 1.24)


def length(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text of a font size, on the safe side."""
    return size * sum(_advance(c)[bold] for c in text)


def _advance(character: str) -> tuple[float, float]:
    """Of a regular and of a bold character; unknown ones count as wide."""
    base = unicodedata.normalize("NFD", character)[:1]
    return _PLAIN.get(base, _WIDE)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with the end kept."""
    return text if len(text) <= limit else f"{text[: limit - 9]}…{text[-8:]}"

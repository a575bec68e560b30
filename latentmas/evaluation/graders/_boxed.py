r"""Find the last `\boxed{…}` of a text."""

from __future__ import annotations

__all__ = ["boxed", "unwrapped"]

_OPEN = "\\boxed{"
_WRAPPERS = ("\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{")


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` with balanced braces; None if there is none."""
    start = text.rfind(_OPEN)
    while start >= 0:
        depth = 1
        for end in range(start + len(_OPEN), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start + len(_OPEN) : end].strip()
        start = text.rfind(_OPEN, 0, start)
    return None


def unwrapped(text: str) -> str:
    r"""The text without dollar signs, a final full stop and one enclosing `\text{…}` or similar."""
    text = text.strip().strip("$").strip().rstrip(".").strip()
    for opening in _WRAPPERS:
        if text.startswith(opening) and text.endswith("}"):
            return text[len(opening) : -1].strip()
    return text

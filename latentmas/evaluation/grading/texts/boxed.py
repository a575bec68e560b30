r"""Find the last `\boxed{…}` of a text."""

from __future__ import annotations

import re

__all__ = ["boxed", "unwrapped"]

_BRACE = re.compile(r"\\f?boxed\s*\{|\\[\\{}]|[{}]")
_WRAPPERS = ("\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{")


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` with balanced braces; None if there is none.

    It takes time in proportion to the text's length, whatever the text.
    """
    opened, found = list[tuple[int, bool]](), (-1, -1)
    for match in _BRACE.finditer(text):
        token = match[0]
        if token == "}":
            start, is_box = opened.pop() if opened else (-1, False)
            if is_box and start > found[0]:
                found = start, match.start()
        elif token[-1] == "{" and token != "\\{":
            opened.append((match.end(), token != "{"))
    return None if found[0] < 0 else text[found[0] : found[1]].strip()


def unwrapped(text: str) -> str:
    r"""The text without dollar signs, a final full stop and one enclosing `\text{…}` or similar."""
    text = text.strip().strip("$").strip().rstrip(".").strip()
    for opening in _WRAPPERS:
        if text.startswith(opening) and text.endswith("}"):
            return text[len(opening) : -1].strip()
    return text

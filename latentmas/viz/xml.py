"""Elements of an SVG or HTML document as text."""

from __future__ import annotations

from html import escape

__all__ = ["mark", "tag"]

_SHAPES = frozenset({"circle", "line", "path", "polyline", "rect"})


def tag(name: str, inner: str = "", /, **attributes: str | float) -> str:
    """An element around `inner`, which is XML already; `class_` and `text_x` read as in XML."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    closes_itself = not inner and name in _SHAPES  # in HTML only these may
    return f"<{name}{pairs}/>" if closes_itself else f"<{name}{pairs}>{inner}</{name}>"


def mark(text: str, *, lines: bool = False) -> str:
    """Text that is safe in XML; characters that may not be shown become a sign for that.

    Args:
        text: whatever it holds.
        lines: keep the ends of lines.
    """
    return escape(
        "".join(c if c.isprintable() or (lines and c == "\n") else "\ufffd" for c in text)
    )


def _value(value: str | float) -> str:
    return mark(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")

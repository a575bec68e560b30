"""Elements of an SVG or HTML document as text."""

from __future__ import annotations

from html import escape

__all__ = ["mark", "tag"]


def tag(name: str, inner: str = "", /, **attributes: str | float) -> str:
    """An element around `inner`, which is XML already; `class_` and `text_x` read as in XML."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{inner}</{name}>" if inner else f"<{name}{pairs}/>"


def mark(text: str) -> str:
    """Text that is safe in XML; characters that may not be shown become a sign for that."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


def _value(value: str | float) -> str:
    return mark(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")

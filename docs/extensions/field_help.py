"""Fields of dataclasses with `metadata={"help": …}` are documented by that text.

An extension of Griffe, which mkdocstrings uses; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe

__all__ = ["FieldHelp"]


class FieldHelp(griffe.Extension):
    """Makes the help of a field its docstring, unless it has one."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called with each attribute that is collected."""
        if attr.docstring is None and (text := field_help(str(attr.value or ""))):
            attr.docstring = griffe.Docstring(text, parent=attr)


def field_help(source: str) -> str:
    """The help text of a call `field(…, metadata={"help": …})`; empty for any other expression."""
    if not source.startswith("field("):
        return ""
    (call,) = (node for node in ast.walk(ast.parse(source, mode="eval")) if is_call(node))
    for keyword in call.keywords:
        if keyword.arg == "metadata":
            return str(ast.literal_eval(keyword.value).get("help", ""))
    return ""


def is_call(node: ast.AST) -> bool:
    """Whether a node is the call of `field`."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "field"

"""Tools: functions of plain arguments that an agent may call while it decodes text.

A tool is one file here, or an entry point of the group `latentmas.tools`; its name is the name of
the file and of the function in it. A tool takes annotated arguments and returns text, and its
docstring describes it to the model. Importing this package does not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.sandbox import sandbox_facts, sandbox_kind
    from latentmas.tools.python import python, python_tool
    from latentmas.tools.search import search, search_tool

__all__ = [
    "get",
    "names",
    "python",
    "python_tool",
    "register",
    "sandbox_facts",
    "sandbox_kind",
    "search",
    "search_tool",
    "Tool",
    "tools",
]

Tool = Callable[..., str]
"""A function of annotated plain arguments that returns text, described by its docstring."""

tools: Registry[Tool] = Registry("tool", "latentmas.tools")
"""Every tool by name; `@tools.register("mine")` adds one from any module."""

names = tools.names
get = tools.get
register = tools.register


class _Package(ModuleType):
    """This package: importing the file of a tool must not hide the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{__name__}.{name}":
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "python_tool":
        from latentmas.tools.python import python_tool

        return python_tool
    if name == "search_tool":
        from latentmas.tools.search import search_tool

        return search_tool
    if name in ("sandbox_facts", "sandbox_kind"):
        from latentmas import sandbox

        return getattr(sandbox, name)
    if name.startswith("_") or name not in tools:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return get(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *names()})

"""Ready topologies: functions that return a `Graph` which the user may still edit.

A template is one file here, or an entry point of the group `latentmas.templates`; its name is the
name of the file and of the function in it. A file may hold presets beside it: the same topology
on the paper's models. Templates only declare: no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentmas.registry import Registry
from latentmas.spec import Graph
from latentmas.templates._prompts import Prompts

if TYPE_CHECKING:
    from latentmas.templates.deliberation import deliberation
    from latentmas.templates.distillation import distillation
    from latentmas.templates.mixture import mixture
    from latentmas.templates.sequential import sequential, sequential_light, sequential_scaled

__all__ = [
    "Prompts",
    "Template",
    "deliberation",
    "distillation",
    "get",
    "mixture",
    "names",
    "register",
    "sequential",
    "sequential_light",
    "sequential_scaled",
    "templates",
]

Template = Callable[..., Graph]
"""A function of keyword arguments that returns a graph."""

PRESETS = {"sequential_light": "sequential", "sequential_scaled": "sequential"}
"""Presets that are functions of their own → the file that holds them."""

templates: Registry[Template] = Registry("template", "latentmas.templates", also=PRESETS)
"""Every template by name."""

names = templates.names
get = templates.get
register = templates.register


class _Package(ModuleType):
    """This package: importing the file of a template must not hide the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{__name__}.{name}":
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in templates:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return get(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *names()})

"""Ready-made topologies: functions that return a `Graph`, which the user can still edit.

A template is a file in this package or an entry point in the group `latentmas.templates`; file and
function have the template's name. A file may also define presets: the same topology with the
paper's models. Templates only declare graphs and do not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from latentmas.registry import Registry
from latentmas.spec import Graph
from latentmas.templates._prompts import TEAM_SYSTEM, Prompts

if TYPE_CHECKING:
    from latentmas.templates.deliberation import deliberation
    from latentmas.templates.distillation import distillation
    from latentmas.templates.mixture import mixture
    from latentmas.templates.sequential import sequential, sequential_light, sequential_scaled

__all__ = [
    "Prompts",
    "TEAM_SYSTEM",
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
"""Preset → name of the file that defines it."""

templates: Registry[Template] = Registry("template", "latentmas.templates", also=PRESETS)
"""Every template by name."""

names = templates.names
get = templates.get
register = templates.register


class _Package(ModuleType):
    """Type of this package: importing a template's file must not hide its function."""

    def __setattr__(self, name: str, value: object) -> None:
        # After importing a submodule, Python sets it as an attribute of its package.
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

"""Frozen language models: the only code that touches a model's inside. One family a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentmas.backbones._facts import UnsuitableBackboneError, read_info, resolve_source
from latentmas.backbones._registry import families

if TYPE_CHECKING:
    from latentmas.backbones._base import Family
    from latentmas.backbones._loaded import LoadedBackbone, load_backbone
    from latentmas.backbones._state import State
    from latentmas.backbones._static import StaticState

__all__ = [
    "Family",
    "LoadedBackbone",
    "State",
    "StaticState",
    "UnsuitableBackboneError",
    "families",
    "load_backbone",
    "read_info",
    "resolve_source",
]

_HOMES = {
    "Family": "_base",
    "LoadedBackbone": "_loaded",
    "State": "_state",
    "StaticState": "_static",
    "load_backbone": "_loaded",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

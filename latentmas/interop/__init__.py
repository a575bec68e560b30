"""Import published work: RecursiveMAS checkpoints, and the prompts of its code."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentmas.interop._prompt_layouts import TASKS
    from latentmas.interop._styles import STYLES
    from latentmas.interop.prompts import import_prompts
    from latentmas.interop.release import load_release

__all__ = ["STYLES", "TASKS", "import_prompts", "load_release"]

_HOMES = {
    "STYLES": "_styles",
    "TASKS": "_prompt_layouts",
    "import_prompts": "prompts",
    "load_release": "release",
}


def __getattr__(name: str) -> Any:  # lazy: importing prompts does not need torch
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

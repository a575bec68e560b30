"""Import published work: RecursiveMAS checkpoints, and the prompts of its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used

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

__getattr__ = imported_when_used(__name__, _HOMES)

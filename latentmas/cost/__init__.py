"""What a run will take: the interpreter's walk with an executor that counts, and a roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentmas.cost.explanation import Explanation, StepCost
from latentmas.cost.hardware import HARDWARE, Hardware

if TYPE_CHECKING:
    from latentmas.cost.explain import explain_plan, explain_samples
    from latentmas.cost.roofline import Model, Work

__all__ = [
    "HARDWARE",
    "Explanation",
    "Hardware",
    "Model",
    "StepCost",
    "Work",
    "explain_plan",
    "explain_samples",
]

_HOMES = {
    "Model": "roofline",
    "Work": "roofline",
    "explain_plan": "explain",
    "explain_samples": "explain",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

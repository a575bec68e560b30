"""What a run will take: the interpreter's walk with an executor that counts, and a roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.cost.explanation import Explanation, StepCost
from latentmas.cost.hardware import HARDWARE, Hardware
from latentmas.lazy import imported_when_used

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

__getattr__ = imported_when_used(__name__, _HOMES)

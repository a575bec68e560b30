"""Analyses of what a team's messages hold: one a file, found by name. No torch until one is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used
from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.studies.analyses._base import Analysis, Curves, Finding, Material
    from latentmas.studies.analyses._run import analyse

__all__ = ["Analysis", "Curves", "Finding", "Material", "analyse", "analyses"]

_HOMES = {
    "Analysis": "_base",
    "Curves": "_base",
    "Finding": "_base",
    "Material": "_base",
    "analyse": "_run",
}

analyses: Registry[type[Analysis]] = Registry("analysis", "latentmas.studies.analyses")
"""Analyses by name."""

__getattr__ = imported_when_used(__name__, _HOMES)

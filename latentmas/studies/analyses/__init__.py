"""Analyses of what a team's messages hold: one a file, found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used
from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.studies.analyses._base import Analysis, Curves, Finding, Material, Message
    from latentmas.studies.analyses._run import analyse

__all__ = ["Analysis", "Curves", "Finding", "Material", "Message", "analyse", "analyses"]

_HOMES = {
    "Analysis": "_base",
    "Curves": "_base",
    "Finding": "_base",
    "Material": "_base",
    "Message": "_base",
    "analyse": "_run",
}

analyses: Registry[type[Analysis]] = Registry("analysis", "latentmas.studies.analyses")
"""Analyses by name."""

__getattr__ = imported_when_used(__name__, _HOMES)

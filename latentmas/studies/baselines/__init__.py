"""Baselines by name: systems to compare a team with, on the same rows and with a stated budget.

A baseline is a file in this package, an entry point in the group `latentmas.studies.baselines`, or
a class registered with `baselines.register`.
"""

from __future__ import annotations

from latentmas.studies.baselines._base import (
    Baseline,
    BaselineJob,
    BaselineOptions,
    Budget,
    Effort,
    MadeBaseline,
    load_alone,
)
from latentmas.studies.baselines._registry import baselines, open_baseline
from latentmas.studies.baselines._run import run_baseline
from latentmas.studies.baselines._table import BaselineReport, SystemReport

__all__ = [
    "Baseline",
    "BaselineJob",
    "BaselineOptions",
    "BaselineReport",
    "Budget",
    "Effort",
    "MadeBaseline",
    "SystemReport",
    "baselines",
    "load_alone",
    "open_baseline",
    "run_baseline",
]

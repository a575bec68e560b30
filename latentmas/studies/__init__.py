"""Studies: many trainings and evaluations of a team, each kept in a folder of its own."""

from __future__ import annotations

from latentmas.studies.baselines import (
    Baseline,
    BaselineJob,
    BaselineOptions,
    BaselineReport,
    Budget,
    Effort,
    MadeBaseline,
    SystemReport,
    baselines,
    load_alone,
    open_baseline,
    run_baseline,
)
from latentmas.studies.cells import Cell, CellResult, read_cells, run_cell

__all__ = [
    "Baseline",
    "BaselineJob",
    "BaselineOptions",
    "BaselineReport",
    "Budget",
    "Cell",
    "CellResult",
    "Effort",
    "MadeBaseline",
    "SystemReport",
    "baselines",
    "load_alone",
    "open_baseline",
    "read_cells",
    "run_baseline",
    "run_cell",
]

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
from latentmas.studies.grid import Grid, PlannedCell
from latentmas.studies.jobs import FailedCell, Job, JobEnd, run_jobs
from latentmas.studies.study import StudyInterrupted
from latentmas.studies.summary import StudyRow
from latentmas.studies.sweeps import Sweep, plan_sweep, read_sweep, sweep
from latentmas.studies.tables import StudyTable, study_table

__all__ = [
    "Baseline",
    "BaselineJob",
    "BaselineOptions",
    "BaselineReport",
    "Budget",
    "Cell",
    "CellResult",
    "Effort",
    "FailedCell",
    "Grid",
    "Job",
    "JobEnd",
    "MadeBaseline",
    "PlannedCell",
    "StudyInterrupted",
    "StudyRow",
    "StudyTable",
    "Sweep",
    "SystemReport",
    "baselines",
    "load_alone",
    "open_baseline",
    "plan_sweep",
    "read_cells",
    "read_sweep",
    "run_baseline",
    "run_cell",
    "run_jobs",
    "study_table",
    "sweep",
]

"""Studies: many trainings and evaluations of a team, each kept in a folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used

if TYPE_CHECKING:
    from latentmas.metering import Cost, CostMeter
    from latentmas.studies.analyses._run import AnalysisReport, analyse
    from latentmas.studies.baselines import (
        Baseline,
        BaselineJob,
        BaselineOptions,
        BaselineReport,
        Budget,
        Effort,
        MadeBaseline,
        SystemReport,
        load_alone,
        open_baseline,
        run_baseline,
    )
    from latentmas.studies.cells import Cell, CellResult, read_cells, run_cell
    from latentmas.studies.cost_report import CostReport, MeasuredCost
    from latentmas.studies.costs import measure_costs
    from latentmas.studies.grid import Grid, PlannedCell
    from latentmas.studies.jobs import FailedCell, Job, JobEnd, run_jobs
    from latentmas.studies.parameters import ParameterCounts, parameter_counts
    from latentmas.studies.prices import Price, PriceTable
    from latentmas.studies.study import StudyInterrupted
    from latentmas.studies.summary import StudyRow
    from latentmas.studies.sweeps import Sweep, plan_sweep, read_sweep, sweep
    from latentmas.studies.tables import StudyTable, study_table

__all__ = [
    "AnalysisReport",
    "Baseline",
    "BaselineJob",
    "BaselineOptions",
    "BaselineReport",
    "Budget",
    "Cell",
    "CellResult",
    "Cost",
    "CostMeter",
    "CostReport",
    "Effort",
    "FailedCell",
    "Grid",
    "Job",
    "JobEnd",
    "MadeBaseline",
    "MeasuredCost",
    "ParameterCounts",
    "PlannedCell",
    "Price",
    "PriceTable",
    "StudyInterrupted",
    "StudyRow",
    "StudyTable",
    "Sweep",
    "SystemReport",
    "analyse",
    "load_alone",
    "measure_costs",
    "open_baseline",
    "parameter_counts",
    "plan_sweep",
    "read_cells",
    "read_sweep",
    "run_baseline",
    "run_cell",
    "run_jobs",
    "study_table",
    "sweep",
]

_HOMES = {
    "AnalysisReport": "analyses._run",
    "Baseline": "baselines",
    "BaselineJob": "baselines",
    "BaselineOptions": "baselines",
    "BaselineReport": "baselines",
    "Budget": "baselines",
    "Cell": "cells",
    "CellResult": "cells",
    "Cost": "costs",
    "CostMeter": "costs",
    "CostReport": "cost_report",
    "Effort": "baselines",
    "FailedCell": "jobs",
    "Grid": "grid",
    "Job": "jobs",
    "JobEnd": "jobs",
    "MadeBaseline": "baselines",
    "MeasuredCost": "cost_report",
    "ParameterCounts": "parameters",
    "PlannedCell": "grid",
    "Price": "prices",
    "PriceTable": "prices",
    "StudyInterrupted": "study",
    "StudyRow": "summary",
    "StudyTable": "tables",
    "Sweep": "sweeps",
    "SystemReport": "baselines",
    "analyse": "analyses._run",
    "load_alone": "baselines",
    "measure_costs": "costs",
    "open_baseline": "baselines",
    "parameter_counts": "parameters",
    "plan_sweep": "sweeps",
    "read_cells": "cells",
    "read_sweep": "sweeps",
    "run_baseline": "baselines",
    "run_cell": "cells",
    "run_jobs": "jobs",
    "study_table": "tables",
    "sweep": "sweeps",
}

__getattr__ = imported_when_used(__name__, _HOMES)

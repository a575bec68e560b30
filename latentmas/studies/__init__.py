"""Studies: many trainings and evaluations of a team, each kept in a folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used
from latentmas.studies.cells import Cell, CellResult, read_cells, run_cell

if TYPE_CHECKING:
    from latentmas.metering import Cost, CostMeter
    from latentmas.studies.analyses._run import AnalysisReport, analyse
    from latentmas.studies.cost_report import CostReport, MeasuredCost
    from latentmas.studies.costs import measure_costs
    from latentmas.studies.parameters import ParameterCounts, parameter_counts
    from latentmas.studies.prices import Price, PriceTable

__all__ = [
    "AnalysisReport",
    "Cell",
    "CellResult",
    "Cost",
    "CostMeter",
    "CostReport",
    "MeasuredCost",
    "ParameterCounts",
    "Price",
    "PriceTable",
    "analyse",
    "measure_costs",
    "parameter_counts",
    "read_cells",
    "run_cell",
]

_HOMES = {
    "AnalysisReport": "analyses._run",
    "Cost": "costs",
    "CostMeter": "costs",
    "CostReport": "cost_report",
    "MeasuredCost": "cost_report",
    "ParameterCounts": "parameters",
    "Price": "prices",
    "PriceTable": "prices",
    "analyse": "analyses._run",
    "measure_costs": "costs",
    "parameter_counts": "parameters",
}

__getattr__ = imported_when_used(__name__, _HOMES)

"""Studies: many trainings and evaluations of a team, each kept in a folder of its own."""

from __future__ import annotations

from latentmas.studies.cells import Cell, CellResult, read_cells, run_cell

__all__ = ["Cell", "CellResult", "read_cells", "run_cell"]

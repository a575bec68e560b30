"""A study as a page: the table, the plots, and what each cell was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from latentmas.atomic import write_text_atomically
from latentmas.viz.pages import Table, render
from latentmas.viz.plots import HeatMap, LinePlot

__all__ = ["StudyCell", "report_study"]


@dataclass(frozen=True)
class StudyCell:
    """One cell of a study, as a page shows it."""

    name: str
    """Its settings in words."""
    result: str
    """Its scores, or why it failed, in a few words."""
    failed: bool
    facts: Table
    details: str = ""
    """Long text below the facts, such as a traceback."""


def report_study(
    path: Path,
    *,
    title: str,
    table: Table,
    notes: Sequence[str],
    plots: Sequence[HeatMap | LinePlot],
    cells: Sequence[StudyCell],
) -> Path:
    """Write the page: one file that needs no network.

    Args:
        path: File to write.
        title: Heading.
        table: One row per combination of settings.
        notes: Sentences below the table.
        plots: Plots to show.
        cells: All cells.
    """
    text = render(
        "study.html.jinja",
        title=title,
        results=table,
        notes=notes,
        plots=[(plot.title, Markup(plot.svg(inline=True))) for plot in plots],
        cells=cells,
    )
    return write_text_atomically(path, text)

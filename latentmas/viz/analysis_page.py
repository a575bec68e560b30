"""An analysis as a page, and its charts as SVG and PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentmas.atomic import write_atomically, write_text_atomically
from latentmas.errors import LatentMASError
from latentmas.redact import get_logger
from latentmas.viz.charts import Chart, chart, standalone
from latentmas.viz.drawing.png import curves_png
from latentmas.viz.pages import Table, render

__all__ = ["Curves", "AnalysisSection", "report_analysis"]

log = get_logger(__name__)


@dataclass(frozen=True)
class Curves:
    """A chart over rounds."""

    title: str
    """What it shows."""
    lines: Mapping[str, Sequence[tuple[float, float]]]
    """Name → points (round, value)."""
    y: str
    """Name of the values."""
    reference: tuple[float, str] | None = None
    """A value to compare with, and its name."""
    log: bool = False
    """Whether values that are far apart are drawn by their logarithm."""


@dataclass(frozen=True)
class AnalysisSection:
    """What one analysis found."""

    name: str
    """Name of the analysis, for names of files."""
    title: str
    verdict: Sequence[str]
    """Sentences."""
    tables: Sequence[tuple[Table, Sequence[str]]]
    """Tables, each with sentences below it."""
    curves: Sequence[Curves]


@dataclass(frozen=True)
class _Shown:
    """A section with its charts drawn."""

    section: AnalysisSection
    charts: Sequence[Chart]


def report_analysis(
    path: Path, *, title: str, head: str, sections: Sequence[AnalysisSection]
) -> Path:
    """Write the page, and each chart as SVG and, where matplotlib is installed, as PNG.

    Args:
        path: File of the page; charts are written beside it.
        title: Heading.
        head: Sentence below it.
        sections: What analyses found.
    """
    shown = []
    for section in sections:
        charts = [
            chart(c.title, c.lines, x="round", y=c.y, reference=c.reference, log=c.log)
            for c in section.curves
        ]
        shown.append(_Shown(section, charts))
        for drawn, curves in zip(charts, section.curves, strict=True):
            stem = path.parent / f"{section.name}-{_plain(curves.title)}"
            write_text_atomically(stem.with_suffix(".svg"), standalone(drawn))
            _write_png(stem.with_suffix(".png"), curves)
    return write_text_atomically(
        path, render("analysis.html.jinja", title=title, head=head, sections=shown)
    )


def _write_png(path: Path, curves: Curves) -> None:
    try:
        data = curves_png(curves.title, curves.lines, log=curves.log, x="round", y=curves.y)
    except LatentMASError as error:  # matplotlib is not installed
        log.info("%s is left out: %s", path.name, error)
        return
    write_atomically(path, data)


def _plain(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")

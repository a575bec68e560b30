"""The plots and the page of a sweep, from its table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from latentmas.studies.cells import CellResult, Setting, in_words
from latentmas.studies.jobs import FailedCell
from latentmas.studies.summary import StudyRow
from latentmas.studies.tables import StudyTable
from latentmas.viz import HeatMap, LinePlot, Measured, StudyCell, Table, report_study

__all__ = ["heat_maps", "line_plots", "plots_of", "write_page"]

DEPTHS = ("train_rounds", "run_rounds")
MOST_LINES = 6
"""Maximum number of lines of one plot: each has a dash and a sign of its own."""
LEAST_RANGE = 20.0
"""Minimum distance, in per cent, of the lightest and the darkest ground of a heat map: chance
alone should not look like contrast."""
MOST_PLOTS = 12
"""Maximum number of plots of one kind."""


def plots_of(table: StudyTable) -> dict[str, HeatMap | LinePlot]:
    """All plots of a table, by the names of their files without suffix."""
    found: dict[str, HeatMap | LinePlot] = {}
    plots: list[HeatMap | LinePlot] = [*heat_maps(table), *line_plots(table)]
    for plot in plots:
        kind = "heat-map" if isinstance(plot, HeatMap) else f"score-over-{plot.x}"
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", kind)
        number = sum(
            name == stem or re.fullmatch(rf"{stem}-\d+", name) is not None for name in found
        )
        found[stem if number == 0 else f"{stem}-{number + 1}"] = plot
    return found


def heat_maps(table: StudyTable) -> list[HeatMap]:
    """Scores at all pairs of two settings, one map for each combination of the others.

    Rounds of training and of running make the map where both vary; otherwise the first two
    settings that vary.
    """
    varied = _varied(table)
    if len(varied) < 2:
        return []
    row, column = DEPTHS if set(DEPTHS) <= varied.keys() else tuple(varied)[:2]
    rest = [name for name in varied if name not in (row, column)]
    scores = [100 * row.score for row in table.rows if row.score is not None]
    low, high = min(scores, default=0.0), max(scores, default=100.0)
    bounds = low, max(high, low + LEAST_RANGE)
    maps = []
    for key, rows in _groups(table.rows, rest).items():
        by_pair = {(one.settings[row], one.settings[column]): one for one in rows}
        cells = [[_measured(by_pair.get((a, b))) for b in varied[column]] for a in varied[row]]
        down, across = ([str(value) for value in varied[name]] for name in (row, column))
        title = f"Score, {key}" if key else "Score"
        maps.append(HeatMap(title, row, column, down, across, cells, bounds))
    return maps[:MOST_PLOTS]


def line_plots(table: StudyTable) -> list[LinePlot]:
    """Scores over each numeric setting, a line for each combination of the others."""
    varied, plots = _varied(table), list[LinePlot]()
    for name, values in varied.items():
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values):
            continue
        rest = [other for other in varied if other != name]
        lines: dict[str, dict[float, Measured]] = {}
        for key, rows in _groups(table.rows, rest).items():
            found = {row.settings[name]: _measured(row) for row in rows}
            line = {float(x): one for x in numbers if (one := found.get(x)) is not None}
            lines |= {key: line} if line else {}
        ticks = sorted(map(float, numbers))
        plots += _split(name, ticks, lines)
    return plots[:MOST_PLOTS]


def write_page(
    path: Path, title: str, table: StudyTable, results: Sequence[CellResult | FailedCell]
) -> Path:
    """Write the page of a study.

    Args:
        path: File to write.
        title: Heading.
        table: Table of the study.
        results: Its cells.
    """
    words = len(table.names)
    shown = Table(
        "One row per combination of settings",
        table.columns,
        list(table.cells()),
        numbers=range(words, len(table.columns)),
    )
    plots = list(plots_of(table).values())
    cells = [_cell(one) for one in results]
    return report_study(path, title=title, table=shown, notes=table.notes, plots=plots, cells=cells)


def _split(
    name: str, ticks: list[float], lines: Mapping[str, dict[float, Measured]]
) -> Iterator[LinePlot]:
    """Plots of few lines each."""
    names = list(lines)
    count = -(-len(names) // MOST_LINES)
    for part in range(count):
        own = names[part * MOST_LINES : (part + 1) * MOST_LINES]
        more = f" ({part + 1} of {count})" if count > 1 else ""
        yield LinePlot(f"Score over {name}{more}", name, ticks, {one: lines[one] for one in own})


def _varied(table: StudyTable) -> dict[str, list[Setting]]:
    """Settings with several values, and their values, in the order of the table."""
    values = {
        name: list(dict.fromkeys(row.settings.get(name) for row in table.rows))
        for name in table.names
    }
    return {name: own for name, own in values.items() if len(own) > 1}


def _groups(rows: Sequence[StudyRow], names: Sequence[str]) -> dict[str, list[StudyRow]]:
    """Rows by their values of some settings, in words."""
    found: dict[str, list[StudyRow]] = {}
    for row in rows:
        key = in_words({name: row.settings.get(name) for name in names})
        found.setdefault(key, []).append(row)
    return found


def _measured(row: StudyRow | None) -> Measured | None:
    if row is None or row.score is None or row.interval is None:
        return None
    low, high = row.interval
    return Measured(100 * row.score, 100 * low, 100 * high)


def _cell(one: CellResult | FailedCell) -> StudyCell:
    """A cell as the page shows it."""
    name = in_words(one.settings)
    settings = [(key, str(value)) for key, value in one.settings.items()]
    if isinstance(one, FailedCell):
        shown = Table("Settings", ("setting", "value"), settings)
        return StudyCell(name, f"failed: {one.kind}", True, shown, one.traceback)
    scores = [
        f"{run or 'score'} {100 * found['score']:.1f}" for run, found in one.evaluations.items()
    ]
    machine = ", ".join(f"{k} {v}" for k, v in one.hardware.items() if v)
    facts = [(k, f"{v:,}" if isinstance(v, int) else str(v)) for k, v in one.facts.items()]
    versions = ", ".join(f"{k} {v}" for k, v in one.versions.items() if v)
    rows = [
        *(*settings, *facts, ("seconds", f"{one.seconds:.1f}"), ("machine", machine)),
        *(("versions", versions), ("folder", one.folder.name), ("digest", one.digest)),
    ]
    return StudyCell(name, ", ".join(scores), False, Table("Settings and facts", ("", ""), rows))

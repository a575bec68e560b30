"""The table of a study: one row per combination of settings, as text, Markdown, LaTeX or data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from latentmas.errors import DataError
from latentmas.evaluation import Difference
from latentmas.studies.cells import CellResult, Setting, in_words
from latentmas.studies.jobs import FailedCell
from latentmas.studies.summary import StudyRow, difference_of, summarise_cells
from latentmas.studies.tabulate import Sheet

__all__ = ["StudyTable", "study_table"]

SEED = "seed"
EXPLAINED = (
    "Scores in per cent ({grader}) on {questions} questions: mean ± standard deviation over seeds. "
    "The 95 % intervals cluster by question, and differences are paired by question. Tokens and "
    "latent steps are means per row."
)


@dataclass(frozen=True)
class StudyTable:
    """The results of a study, one row per combination of settings; `print` shows it."""

    rows: Sequence[StudyRow]
    """Rows in the order of the cells."""
    names: tuple[str, ...]
    """Names of the settings, the first columns."""
    grader: str
    """Name of the grader."""
    remarks: tuple[str, ...] = ()
    """Further sentences below the table."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the columns."""
        controls = [f"less {name}" for name in self.controls]
        numbers = ("seeds", "score", "95 % interval", "less first row")
        return (*self.names, *numbers, *controls, "tokens", "latent steps")

    @property
    def controls(self) -> list[str]:
        """Names of the controls that the rows are compared with."""
        return list(dict.fromkeys(name for row in self.rows for name in row.others))

    def cells(self) -> Iterator[tuple[str, ...]]:
        """The rows as text."""
        for row in self.rows:
            settings = (_setting(row.settings.get(name)) for name in self.names)
            others = (_difference(row.others.get(name)) for name in self.controls)
            known = row.score is not None
            costs = [_count(n) if known else "" for n in (row.new_tokens, row.latent_steps)]
            yield (*settings, *_numbers(row), *others, *costs)

    @cached_property
    def notes(self) -> list[str]:
        """Sentences below the table: what the numbers are, and which row has the highest."""
        scored = [row for row in self.rows if row.score is not None]
        if not scored:
            return ["All cells have failed.", *self.remarks]
        questions = len(set(scored[0].questions))
        told = EXPLAINED.format(grader=self.grader, questions=questions)
        return [told, _highest(scored), *self.remarks]

    def sheet(self) -> Sheet:
        """The rows as text, with the notes."""
        return Sheet(self.columns, list(self.cells()), self.notes, len(self.names))

    def markdown(self) -> str:
        """The table in Markdown."""
        return self.sheet().markdown()

    def latex(self) -> str:
        r"""The table in LaTeX, for `\usepackage{booktabs}`."""
        return self.sheet().latex()

    def csv(self) -> str:
        """The numbers as CSV, with scores from 0 to 1."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        compared = ["first_row", *self.controls]
        bounds = [f"less_{name}{end}" for name in compared for end in ("", "_low", "_high")]
        numbers = ("seeds", "failed", "score", "deviation", "low", "high")
        writer.writerow([*self.names, *numbers, *bounds, "new_tokens", "latent_steps"])
        for row in self.rows:
            pairs = [row.difference, *(row.others.get(name) for name in self.controls)]
            told = [n for one in pairs for n in (one and (one.mean, *one.interval)) or ("",) * 3]
            own = [len(row.scores), row.failed, row.score, row.deviation]
            own += row.interval or (None, None)
            settings = [row.settings.get(name) for name in self.names]
            costs = (row.new_tokens, row.latent_steps) if row.scores else ("", "")
            writer.writerow([*settings, *own, *told, *costs])
        return file.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with scores from 0 to 1."""
        rows = [row.to_dict() for row in self.rows]
        return {"grader": self.grader, "names": list(self.names), "rows": rows, "notes": self.notes}

    def write(self, path: str | Path) -> Path:
        """Write the table in the format of the file's suffix: .md, .tex, .csv, .json or .txt.

        Raises:
            DataError: the suffix is none of these, or the file cannot be written.
        """
        return self.sheet().write(path, self.to_dict(), more={".csv": self.csv()})

    def __str__(self) -> str:
        return self.sheet().plain()


def study_table(
    results: Sequence[CellResult | FailedCell],
    *,
    runs: Mapping[str, Setting] | None = None,
    run: str = "evaluation",
    remarks: Sequence[str] = (),
) -> StudyTable:
    """Summarise cells; those that differ only in their seed become one row.

    Args:
        results: Cells, finished or failed, in the order of the table.
        runs: Name of each evaluation of a cell → its value in the table. None: the evaluations of
            the first finished cell, by their names.
        run: Name of the column that tells evaluations apart; left out where there is only one,
            whose name is `""`.
        remarks: Further sentences below the table.

    Raises:
        DataError: there are no cells.
        LatentMASError: a cell lacks an evaluation.
    """
    if not results:
        raise DataError("a table needs at least one cell")
    done = [one for one in results if isinstance(one, CellResult)]
    if runs is None:
        runs = {name: name for name in done[0].evaluations} if done else {"": ""}
    names = list(dict.fromkeys(n for one in results for n in one.settings if n != SEED))
    several = list(runs) != [""]
    groups: dict[str, list[CellResult | FailedCell]] = {}
    for one in results:
        groups.setdefault(json.dumps(_shown(one), sort_keys=True), []).append(one)
    rows: list[StudyRow] = []
    for cells in groups.values():
        for name, value in runs.items():
            settings = _shown(cells[0]) | ({run: value} if several else {})
            first = rows[0] if rows else None
            rows.append(summarise_cells(settings, cells, name, first=first))
    grader = str(done[0].evaluation(next(iter(runs)))["grader"]) if done else ""
    columns = (*names, run) if several else tuple(names)
    return StudyTable(rows, columns, grader, tuple(remarks))


def _shown(cell: CellResult | FailedCell) -> dict[str, Setting]:
    return {name: value for name, value in cell.settings.items() if name != SEED}


def _highest(scored: Sequence[StudyRow]) -> str:
    """The highest score: never without its interval, and what it cannot be told apart from."""
    best = max(scored, key=lambda row: row.score or 0.0)
    assert best.score is not None and best.interval is not None
    low, high = best.interval
    name = in_words({k: v for k, v in best.settings.items() if v is not None}) or "the team"
    head = f"Highest score: {name}, {100 * best.score:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    others = [row for row in scored if row is not best]
    pairs = [difference_of(best, row) for row in others]
    level = sum(pair is None or pair.interval[0] <= 0 for pair in pairs)
    if not others:
        return f"{head}."
    if not level:
        return f"{head}. Its paired difference from each other row has an interval above 0."
    return (
        f"{head}. The interval of its paired difference includes 0 for {level} of the "
        f"{len(others)} other rows."
    )


def _numbers(row: StudyRow) -> tuple[str, str, str, str]:
    """Seeds, score, interval and difference as text."""
    seeds = str(len(row.scores)) + (f", {row.failed} failed" if row.failed else "")
    if row.score is None or row.interval is None:
        return seeds, "failed", "", ""
    score = f"{100 * row.score:.1f}"
    if row.deviation is not None:
        score += f" ± {100 * row.deviation:.1f}"
    low, high = row.interval
    return seeds, score, f"{100 * low:.1f} to {100 * high:.1f}", _difference(row.difference)


def _difference(one: Difference | None) -> str:
    if one is None:
        return ""
    low, high = one.interval
    return f"{100 * one.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _setting(value: Setting) -> str:
    return "" if value is None else str(value)


def _count(number: float) -> str:
    """A mean number of tokens."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"

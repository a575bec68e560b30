"""An evaluation as a page: the table of all systems, and every row with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentmas.atomic import write_text_atomically
from latentmas.viz.answers import LONGEST
from latentmas.viz.drawing.labels import shorten
from latentmas.viz.pages import Table, render

__all__ = ["AnsweredRow", "SystemAnswer", "report_evaluation"]

MOST_ROWS = 2_000
"""Maximum number of rows that a page shows."""


@dataclass(frozen=True)
class SystemAnswer:
    """What one system answered to a row."""

    system: str
    right: bool
    found: str
    """Answer that the grader found."""
    reason: str
    text: str
    """Whole text, or the error."""
    cost: str
    """Tokens and latent steps in words."""


@dataclass(frozen=True)
class AnsweredRow:
    """One row, with the answers of all systems side by side."""

    number: int
    fields: Sequence[tuple[str, str]]
    """Names and values of the sample."""
    gold: str
    prompt: str
    answers: Sequence[SystemAnswer]


def report_evaluation(
    path: Path, *, title: str, table: Table, notes: Sequence[str], rows: Sequence[AnsweredRow]
) -> Path:
    """Write the page: one file that needs no network.

    Args:
        path: file to write.
        title: heading.
        table: the table of all systems.
        notes: sentences below the table.
        rows: all rows; beyond `MOST_ROWS` they are left out, and the page says so.
    """
    shown = [
        AnsweredRow(
            row.number,
            [(name, shorten(text, LONGEST)) for name, text in row.fields],
            shorten(row.gold, LONGEST),
            shorten(row.prompt, LONGEST),
            [
                SystemAnswer(a.system, a.right, a.found, a.reason, shorten(a.text, LONGEST), a.cost)
                for a in row.answers
            ],
        )
        for row in rows[:MOST_ROWS]
    ]
    text = render(
        "evaluation.html.jinja",
        title=title,
        results=table,
        notes=notes,
        rows=shown,
        left_out=len(rows) - len(shown),
    )
    return write_text_atomically(path, text)

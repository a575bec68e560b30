"""`Sheet`: a table of a study, as text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentmas.evaluation import escape_latex

__all__ = ["Sheet"]


@dataclass(frozen=True)
class Sheet:
    """Rows of text under a head; the first columns are words, the others numbers."""

    head: tuple[str, ...]
    """Names of the columns."""
    rows: Sequence[tuple[str, ...]]
    """Cells."""
    notes: Sequence[str] = ()
    """Sentences below the table."""
    words: int = 1
    """Number of columns of words."""

    def without_empty(self) -> Sheet:
        """The same without columns of numbers that have no number in any row."""
        kept = [
            i
            for i in range(len(self.head))
            if i < self.words or any(row[i] not in ("", "–") for row in self.rows)
        ]
        rows = [tuple(row[i] for i in kept) for row in self.rows]
        return Sheet(tuple(self.head[i] for i in kept), rows, self.notes, self.words)

    def plain(self) -> str:
        """The table for a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        text = [
            "  ".join(
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*text, *self.notes])

    def markdown(self) -> str:
        """The table in Markdown."""
        marks = "---|" * self.words + "---:|" * (len(self.head) - self.words)
        lines = [f"| {' | '.join(_no_bars(self.head))} |", f"|{marks}"]
        lines += [f"| {' | '.join(_no_bars(row))} |" for row in self.rows]
        notes = [part for note in self.notes for part in ("", note)]
        return "\n".join([*lines, *notes, ""])

    def latex(self) -> str:
        r"""The table in LaTeX, for `\usepackage{booktabs}`."""
        columns = "l" * self.words + "r" * (len(self.head) - self.words)
        return "\n".join(
            [
                *(f"% {escape_latex(note)}" for note in self.notes),
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                " & ".join(map(escape_latex, self.head)) + r" \\",
                r"\midrule",
                *(" & ".join(map(escape_latex, row)) + r" \\" for row in self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )


def _no_bars(row: tuple[str, ...]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]

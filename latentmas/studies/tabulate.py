"""`Sheet`: a table of a study, as text, Markdown or LaTeX."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError
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
        head, *body = (rf"{_latex_row(row)} \\" for row in (self.head, *self.rows))
        return "\n".join(
            [
                *(f"% {escape_latex(note)}" for note in self.notes),
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )

    def write(
        self, path: str | Path, plain: Mapping[str, Any], *, more: Mapping[str, str] | None = None
    ) -> Path:
        """Write the table in the format of the file's suffix: .md, .tex, .json or .txt.

        Args:
            path: File to write.
            plain: Numbers of the table, for JSON.
            more: Suffix of another format, or one of these → its text.

        Raises:
            DataError: the suffix is unknown, or the file cannot be written.
        """
        path = Path(path)
        texts = {
            ".md": self.markdown(),
            ".tex": self.latex(),
            ".json": json.dumps(plain, indent=1, ensure_ascii=False) + "\n",
            ".txt": f"{self.plain()}\n",
            **(more or {}),
        }
        if path.suffix not in texts:
            *first, last = texts
            raise DataError(
                f"cannot write the table to {str(path)!r}; its name must end in "
                f"{', '.join(first)} or {last}"
            )
        return write_text_atomically(path, texts[path.suffix])


def _latex_row(row: tuple[str, ...]) -> str:
    """Cells with the signs of numbers as LaTeX sets them."""
    text = re.sub(r"(?<!\w)-(?=\d)", "$-$", " & ".join(map(escape_latex, row)))
    return text.replace("±", r"$\pm$")


def _no_bars(row: tuple[str, ...]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]

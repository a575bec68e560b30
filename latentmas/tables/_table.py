"""What all readers return, and the limits they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentmas.errors import DataError

__all__ = ["EXTRA", "MOST_ROWS", "Row", "Table", "check_count"]

Row = dict[str, Any]
MOST_ROWS = 5_000_000
"""Maximum number of rows of a table."""
EXTRA = "pip install 'latentmas[eval]'"


@dataclass(frozen=True)
class Table:
    """Rows and where they come from."""

    rows: list[Row]
    source: str
    """File, or data set with its revision, configuration and split."""
    lines: Sequence[int] | None = None
    """Line number of each row, counted from 1; None if rows do not have lines of their own."""

    def where(self, number: int) -> str:
        """Place of a row, such as `rows.jsonl:12` or `rows.parquet, row 11`."""
        if self.lines is not None:
            return f"{self.source}:{self.lines[number]}"
        return f"{self.source}, row {number}"


def check_count(source: str, count: int) -> None:
    """Check that a table does not have an absurd number of rows.

    Raises:
        DataError: it does.
    """
    if count > MOST_ROWS:
        raise DataError(f"{source}: more than {MOST_ROWS:,} rows; split it, or take a part of it")

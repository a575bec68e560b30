"""Rows of data: JSONL files, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.cli._console import dumps
from latentmas.errors import DataError
from latentmas.safe_data import parse_json

__all__ = ["Rows", "jsonl", "read_rows", "write_rows"]

Row = dict[str, Any]
_TOLD = 20
"""Most rows that one error names."""


@dataclass(frozen=True)
class Rows:
    """The rows of a file, and where they stand in it."""

    path: Path
    rows: list[Row]
    lines: list[int]
    """Line of each row, from 1."""

    def require(self, fields: Iterable[str]) -> None:
        """Check that every row has these fields.

        Raises:
            DataError: naming the file, the line and the field, for every row that lacks one.
        """
        wanted, lacking = list(fields), list[str]()
        for line, row in zip(self.lines, self.rows, strict=True):
            missing = next((name for name in wanted if name not in row), None)
            if missing is not None:
                found = ", ".join(row) or "nothing"
                lacking.append(f"{self.path}:{line}: lacks the field {missing!r}; it has: {found}")
        if lacking:
            more = f"\nand {len(lacking) - _TOLD} more rows" if len(lacking) > _TOLD else ""
            raise DataError("\n".join(lacking[:_TOLD]) + more)


def read_rows(path: Path) -> Rows:
    """Read a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file cannot be read or is empty, or a line is no JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"cannot read {str(path)!r}: not UTF-8 text ({reason})") from error
    found = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not found:
        raise DataError(f"{path}: empty; give one JSON object a line")
    rows = [_row(path, number, line) for number, line in found]
    return Rows(path, rows, [number for number, _ in found])


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSONL text."""
    return "".join(f"{dumps(row)}\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a JSONL file, whole or not at all."""
    return write_text_atomically(path, jsonl(rows))


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = parse_json(line, numbers="any")
    except ValueError as error:
        message = f"{path}:{number}: not JSON: {error}; give one JSON object a line"
        raise DataError(message) from error
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: holds {type(row).__name__}, not a JSON object")
    return row

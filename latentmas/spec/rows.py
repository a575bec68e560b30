"""Rows of data: JSONL files, one JSON object per line, and the check of their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.errors import DataError
from latentmas.safe_data import parse_json

__all__ = ["JsonlFile", "field_problem", "read_jsonl"]

Row = dict[str, Any]
_SHOWN = 20
"""Maximum number of rows that one error names."""
_LONGEST = 200
"""Maximum number of letters of a row that an error shows."""


@dataclass(frozen=True)
class JsonlFile:
    """The rows of a file, and their line numbers."""

    path: Path
    rows: list[Row]
    lines: list[int]
    """Line of each row, from 1."""

    def where(self, number: int) -> str:
        """File and line of a row, such as `rows.jsonl:12`."""
        return f"{self.path}:{self.lines[number]}"

    def require(self, fields: Iterable[str]) -> None:
        """Check that every row has these fields.

        Raises:
            DataError: naming the file, the line and the field, for every row that lacks one.
        """
        wanted = list(fields)
        found = [
            next(filter(None, (field_problem(self.where(i) + ":", row, f) for f in wanted)), None)
            for i, row in enumerate(self.rows)
        ]
        problems = [problem for problem in found if problem is not None]
        if problems:
            rest = len(problems) - _SHOWN
            more = f"\nand {rest} more rows" if rest > 0 else ""
            raise DataError("\n".join(problems[:_SHOWN]) + more)


def read_jsonl(path: str | Path) -> JsonlFile:
    """Read a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not a JSON object.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"cannot read {str(path)!r}: not UTF-8 text ({reason})") from error
    found = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not found:
        raise DataError(f"{path}: empty; give one JSON object per line")
    rows = [_row(f"{path}:{number}", line) for number, line in found]
    return JsonlFile(path, rows, [number for number, _ in found])


def _row(where: str, line: str) -> Row:
    try:
        row = parse_json(line, numbers="any")
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}; give one JSON object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, not a JSON object")
    return row


def field_problem(where: str, row: object, name: str, *, null: bool = True) -> str | None:
    """What is wrong with a field of a row.

    Args:
        where: the row, such as `sample 3` or `rows.jsonl:12:`.
        row: what should be a mapping.
        name: name of the field.
        null: accept null.

    Returns:
        A message that names the row, the field and what is there instead; None if all is well.
    """
    head = where.removesuffix(":")
    if not isinstance(row, Mapping):
        return f"{head}: found {type(row).__name__}, not a mapping of fields"
    if name not in row:
        found = ", ".join(map(str, row)) or "nothing"
        return f"{where} lacks the field {name!r}; it has: {found:.{_LONGEST}}"
    if row[name] is None and not null:
        return (
            f"{head}: the field {name!r} is null, which prompts would show as the word None; give "
            'a text ("" for nothing), or leave the row out'
        )
    return None

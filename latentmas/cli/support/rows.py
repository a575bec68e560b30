"""Rows written as JSONL, one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.cli.support.console import dumps

__all__ = ["Row", "jsonl", "write_rows"]

Row = dict[str, Any]


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSONL text."""
    return "".join(f"{dumps(row)}\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a JSONL file atomically."""
    return write_text_atomically(path, jsonl(rows))

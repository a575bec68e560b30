"""Result files of benchmarks that can be continued: one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["append_line", "read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file, empty if it does not exist; a line cut off by a crash is left out.

    Args:
        path: File that `append_line` writes.
    """
    found = list[dict[str, Any]]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append an object; it begins a line of its own even after one that a crash has cut off.

    Args:
        path: File to append to; its folder is created.
        line: What was measured.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    cut_off = before and not before.endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut_off else "") + json.dumps(line) + "\n")

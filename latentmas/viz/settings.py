"""Settings and data of a training, for its page: what `training.json` in its folder holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentmas.spec._plain import parse_json
from latentmas.viz.pages_old import table, tag

__all__ = ["settings"]

FILE = "training.json"
_LONGEST = 300
_DATA = {"data": "training rows", "eval_data": "held-out rows"}


def settings(folder: Path) -> Iterator[str]:
    """Tables of the data, of settings that differ from their defaults, and of the others.

    A folder without the file, of an earlier version or cut short, gives nothing.
    """
    found = _read(folder / FILE)
    data = [row for key, name in _DATA.items() for row in _rows(name, found.get(key))]
    links = found.get("links")
    if isinstance(links, list):
        data.append(("links that learn", ", ".join(map(str, links))))
    if data:
        yield table("Data and links", ("", ""), data)
    changed = _pairs(found.get("changed"))
    if changed:
        heads = ("setting", "value")
        yield table("Settings that differ from the defaults", heads, changed)
    others = _pairs(found.get("defaults"))
    if others:
        inside = table("Settings left at their default", ("setting", "value"), others)
        yield tag("details", tag("summary", "All other settings") + inside)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"), numbers="any")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows(name: str, told: Any) -> Iterator[tuple[str, str]]:
    if isinstance(told, dict):
        yield name, f"{told.get('rows')}"
        yield f"{name}, digest", f"{told.get('digest')}"


def _pairs(given: Any) -> list[tuple[str, str]]:
    """Names and values; long values are cut."""
    if not isinstance(given, dict):
        return []
    return [(str(name), f"{value}"[:_LONGEST]) for name, value in sorted(given.items())]

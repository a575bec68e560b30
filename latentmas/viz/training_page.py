"""A training as a page, and as PNG: curves of the loss and of what was logged beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.atomic import write_atomically, write_text_atomically
from latentmas.errors import DataError
from latentmas.safe_data import parse_json
from latentmas.viz.charts import Chart, chart
from latentmas.viz.depths import FILE as DEPTHS
from latentmas.viz.depths import DepthMap
from latentmas.viz.drawing.png import curves_png
from latentmas.viz.pages import Table, render

__all__ = ["training_report"]

FILE, SETTINGS = "metrics.jsonl", "training.json"
_ENTRY = '{"step": 1, "loss": 2.5}'
_MAX_LINES, _MAX_POINTS = 6, 400
_LONGEST = 300
_DATA = {"data": "training rows", "eval_data": "held-out rows"}

Entries = Sequence[Mapping[str, Any]]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Curves:
    """One chart: names of lines and their points."""

    title: str
    lines: dict[str, Points]
    log: bool


# Prefix of what is logged → title of its charts; whether their heights are logarithms.
_GROUPS = {
    "loss/": ("Loss after each round", False),
    "grad_norm/": ("Gradient norm of each link", True),
    "weight_norm/": ("Weight norm of each link", False),
    "residual_ratio/": ("Learnt branch over residual", False),
    "message_grad/": ("Gradient norm at each message", True),
    "message_norm/": ("Norm of each message over embeddings", False),
    "message_cosine/": ("Mean cosine between messages of different rows", False),
    "latent_norm/": ("Norm of what agents feed back over embeddings", False),
}
_TOTALS = {
    "train_runtime": "seconds",
    "train_samples_per_second": "rows per second",
    "train_steps_per_second": "steps per second",
    "train_loss": "mean loss",
    "train_cpu_seconds": "processor seconds",
    "train_peak_mib": "peak memory above the start, MiB",
    "train_joules": "energy, joules",
}
_SKIPPED = ("_runtime", "_per_second", "epoch", "_mem_", "total_flos")


def training_report(
    folder: str | Path, path: str | Path | None = None, *, png: str | Path | None = None
) -> Path:
    """Write a training as a page of HTML: its settings, its data and what it logged.

    It is one file that needs no network.

    Args:
        folder: an output folder of a trainer, or one that holds several; every `metrics.jsonl` and
            `depths.json` below it is shown.
        path: the file to write; None: `report.html` in the folder.
        png: a folder for the curves and heat maps as PNG too (needs the extra `viz`).

    Raises:
        DataError: the folder holds neither file, or one that cannot be read.
        LatentMASError: `png` without matplotlib.
    """
    folder = Path(folder)
    found = sorted(folder.rglob(FILE))
    logs = {_place(file, folder): _read(file) for file in found}
    homes = {_place(file, folder): file.parent for file in found}
    maps = {_place(f, folder): DepthMap.load(f) for f in sorted(folder.rglob(DEPTHS))}
    if not logs and not maps:
        raise DataError(
            f"{str(folder)!r} holds no {FILE} and no {DEPTHS}; give the output folder of a training"
        )
    if png is not None:
        _write_png(Path(png), logs, maps)
    text = render(
        "training.html.jinja",
        title="Training: " + "/".join(folder.resolve().parts[-2:]).lstrip("/"),
        logs=[_LogView.of(place, homes[place], entries) for place, entries in logs.items()],
        depth_maps=maps,
    )
    return write_text_atomically(Path(path or folder / "report.html"), text)


def _place(file: Path, folder: Path) -> str:
    """Which training a file belongs to."""
    inside = file.parent.relative_to(folder)
    return inside.as_posix() if inside.parts else folder.resolve().name


def _read(file: Path) -> list[dict[str, Any]]:
    """Entries of a log in the order of their steps; of two at one step with one key, the later.

    A line that a crash has cut short is left out.
    """
    entries: dict[float, dict[str, Any]] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {str(file)!r}: {error}") from error
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            entry = parse_json(line, numbers="nan")
            step = float(entry["step"])
            if 0 <= step < 1e15:
                entries.setdefault(step, {}).update(entry)
    if not entries:
        raise DataError(f"{str(file)!r} holds no entry of a training's log, such as {_ENTRY}")
    return [entries[step] for step in sorted(entries)]


@dataclass(frozen=True)
class _LogView:
    """What the page shows of one training."""

    place: str
    settings: Sequence[Table]
    """Its data and links, and settings that differ from their defaults."""
    defaults: Table | None
    charts: Sequence[Chart]
    totals: Table
    numbers: Table
    """First and last number of everything that was logged."""

    @classmethod
    def of(cls, place: str, folder: Path, entries: Entries) -> _LogView:
        """The view of one log and the settings beside it."""
        settings = _settings(folder)
        return cls(
            place=place,
            settings=[table for table in settings[:-1] if table.rows],
            defaults=settings[-1] if settings[-1].rows else None,
            charts=[chart(c.title, c.lines, x="step", y="", log=c.log) for c in _curves(entries)],
            totals=_totals(entries),
            numbers=_numbers(entries),
        )


def _totals(entries: Entries) -> Table:
    totals = {
        name: entry[key]
        for entry in entries
        for key, name in _TOTALS.items()
        if isinstance(entry.get(key), int | float)
    }
    rows = [(name, f"{value:.4g}") for name, value in totals.items()]
    return Table("The whole training", ("", "number"), rows, numbers=(1,))


def _numbers(entries: Entries) -> Table:
    numbers = {name: _points(entries, name) for name in _names(entries)}
    rows = [
        (name, f"{len(points)}", f"{points[0][1]:.5g}", f"{points[-1][1]:.5g}")
        for name, points in numbers.items()
        if points
    ]
    heads = ("logged", "times", "first", "last")
    return Table("First and last number of everything logged", heads, rows, numbers=(1, 2, 3))


# --- settings ---------------------------------------------------------------------------------


def _settings(folder: Path) -> list[Table]:
    """Tables of the data, of settings that differ from their defaults, and of the others.

    They are empty for a folder without the file, of an earlier version or cut short.
    """
    found = _read_settings(folder / SETTINGS)
    data = [row for key, name in _DATA.items() for row in _data_rows(name, found.get(key))]
    links = found.get("links")
    if isinstance(links, list):
        data.append(("links that learn", ", ".join(map(str, links))))
    heads, changed = ("setting", "value"), _pairs(found.get("changed"))
    return [
        Table("Data and links", ("", ""), data),
        Table("Settings that differ from the defaults", heads, changed),
        Table("Settings left at their default", heads, _pairs(found.get("defaults"))),
    ]


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"), numbers="any")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _data_rows(name: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        yield name, f"{data.get('rows')}"
        yield f"{name}, digest", f"{data.get('digest')}"


def _pairs(given: Any) -> list[tuple[str, str]]:
    """Names and values; long values are cut."""
    if not isinstance(given, dict):
        return []
    return [(str(name), f"{value}"[:_LONGEST]) for name, value in sorted(given.items())]


# --- curves -----------------------------------------------------------------------------------


def _curves(entries: Entries) -> Iterator[_Curves]:
    """The charts of a log: loss, evaluation, rate, then what links and messages do."""
    names = _names(entries)
    losses = {"training": "loss", "evaluation": "eval_loss"}
    yield from _chart("Loss", entries, {k: v for k, v in losses.items() if v in names})
    for name in names:
        if name.startswith("eval_") and name not in ("eval_loss", "eval_step"):
            title = name.removeprefix("eval_").replace("_", " ").capitalize()
            yield from _chart(title, entries, {name: name})
    yield from _chart("Gradient norm of all links", entries, _only("grad_norm", names), log=True)
    speed = "target_tokens_per_second"
    yield from _chart("Target tokens per second", entries, {speed: speed})
    yield from _chart("Learning rate", entries, _only("learning_rate", names))
    for prefix, (title, log) in _GROUPS.items():
        inside = sorted(name for name in names if name.startswith(prefix))
        for start in range(0, len(inside), _MAX_LINES):
            part = inside[start : start + _MAX_LINES]
            more = f" ({start // _MAX_LINES + 1})" if len(inside) > _MAX_LINES else ""
            lines = {name.removeprefix(prefix): name for name in part}
            yield from _chart(title + more, entries, lines, log=log)


def _only(name: str, names: Sequence[str]) -> dict[str, str]:
    return {name: name} if name in names else {}


def _chart(
    title: str, entries: Entries, lines: Mapping[str, str], *, log: bool = False
) -> Iterator[_Curves]:
    found = {shown: _points(entries, name) for shown, name in lines.items()}
    found = {shown: points for shown, points in found.items() if points}
    if found:
        yield _Curves(title, {k: _thinned(points) for k, points in found.items()}, log)


def _names(entries: Entries) -> list[str]:
    """What was logged as numbers over the steps."""
    names = dict.fromkeys(name for entry in entries for name in entry)
    return [
        n
        for n in names
        if n != "step" and n not in _TOTALS and not any(part in n for part in _SKIPPED)
    ]


def _points(entries: Entries, name: str) -> Points:
    found = [(float(e["step"]), e.get(name)) for e in entries]
    return [
        (step, float(value))
        for step, value in found
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def _thinned(points: Points) -> Points:
    """At most so many points, evenly chosen, the last among them."""
    if len(points) <= _MAX_POINTS:
        return points
    every = (len(points) - 1) / (_MAX_POINTS - 1)
    return [points[round(i * every)] for i in range(_MAX_POINTS)]


def _write_png(folder: Path, logs: Mapping[str, Entries], maps: Mapping[str, DepthMap]) -> None:
    for place, entries in logs.items():
        stem = place.replace("/", "-")
        for number, curves in enumerate(_curves(entries), 1):
            name = "".join(c if c.isalnum() else "-" for c in curves.title.lower()).strip("-")
            data = curves_png(curves.title, curves.lines, log=curves.log)
            write_atomically(folder / f"{stem}-{number:02}-{name}.png", data)
    for place, found in maps.items():
        found.save(folder / f"{place.replace('/', '-')}-depths.png")

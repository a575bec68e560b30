"""What the latents do: norms, change from round to round, nearest tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentmas.viz.charts import Chart, chart, heat_cell
from latentmas.viz.drawing.labels import shorten
from latentmas.viz.pages import Cell, Table

if TYPE_CHECKING:
    from latentmas.runtime import LatentReading, RunRecord

__all__ = ["NearestTokens", "Norms", "cosines"]

CELLS = 6_000
"""Maximum number of tokens on a page, which keeps it under two megabytes."""


@dataclass(frozen=True)
class Norms:
    """Norms over latent steps, as multiples of the mean embedding norm where they arrive."""

    charts: Mapping[str, Sequence[Chart]]
    """By what they show: what agents feed back, messages."""
    numbers: Table

    @classmethod
    def of(cls, record: RunRecord) -> Norms:
        """The norms that a run has recorded."""
        groups = {
            "Fed back by each agent": _groups(record.readings, messages=False),
            "Messages": _groups(record.readings, messages=True),
        }
        charts = {
            title: [_norm_chart(name, readings) for name, readings in group.items()]
            for title, group in groups.items()
            if group
        }
        rows: list[list[Cell]] = [
            [
                r.name,
                f"{r.embedding_norm:.4g}",
                *_first_and_last(r.norms),
                *_first_and_last(r.raw_norms),
            ]
            for r in record.readings
        ]
        columns = ("latents", "embeddings", "first", "last", "raw, first", "raw, last")
        caption = "Mean norms, first and last latent step"
        return cls(charts, Table(caption, columns, rows, numbers=range(1, 6)))


def _norm_chart(name: str, readings: Sequence[LatentReading]) -> Chart:
    """Lines over the latent steps, or over the rounds where there is one step only."""
    series = {
        f"round {r.round}": [
            (k, norm / max(r.embedding_norm, 1e-12)) for k, norm in enumerate(r.norms, 1)
        ]
        for r in readings
    }
    x = "latent step"
    if max(len(points) for points in series.values()) == 1:
        heights = [points[0][1] for points in series.values()]
        series, x = {name: [(r.round, y) for r, y in zip(readings, heights, strict=True)]}, "round"
    reference = (1.0, f"embeddings of {shorten(readings[0].agent, 20)}")
    return chart(name, series, x=x, y="norm / embedding norm", reference=reference)


def _first_and_last(values: Sequence[float] | None) -> tuple[str, str]:
    return (f"{values[0]:.4g}", f"{values[-1]:.4g}") if values else ("", "")


def _groups(readings: Sequence[LatentReading], *, messages: bool) -> dict[str, list[LatentReading]]:
    """Readings by agent or edge, over the rounds."""
    found: dict[str, list[LatentReading]] = {}
    for reading in readings:
        if (reading.raw_norms is None) == messages:
            found.setdefault(reading.name.partition(".")[2], []).append(reading)
    return found


def cosines(record: RunRecord) -> Table | None:
    """How alike the same states or message are in two rounds; None where nothing is made twice."""
    if not record.cosines:
        return None
    rounds = range(1, record.plan.graph.rounds + 1)
    pairs = [(a, b) for a in rounds for b in rounds if a < b]
    pairs = [p for p in pairs if p[1] == p[0] + 1] if len(pairs) > 10 else pairs
    rows: list[list[Cell]] = []
    for name, grid in record.cosines.items():
        kind = "message" if "->" in name else "states"
        rows.append([name, kind, *(heat_cell(grid[a - 1][b - 1]) for a, b in pairs)])
    columns = ("latents", "", *(f"{a} and {b}" for a, b in pairs))
    caption = "Mean cosine of the same latents in two rounds, step by step"
    return Table(caption, columns, rows, numbers=range(2, len(columns)))


# --- tokens -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenTable:
    """Nearest tokens of one sample: rounds and latent steps downwards, tokens to the right."""

    title: str
    rows: Sequence[tuple[int, int, Sequence[tuple[str, float]]]]
    """Round, latent step from 1, and tokens with probability or cosine, the nearest first."""


@dataclass(frozen=True)
class NearestTokens:
    """Tokens nearest to each latent step, first for the states of agents, then for messages."""

    groups: Mapping[str, Mapping[str, Sequence[TokenTable]]]
    """Title → agent or edge → a table for each sample."""
    top: int
    """Maximum number of tokens shown for a latent step."""
    note: str
    """What is left out."""

    @classmethod
    def of(cls, record: RunRecord) -> NearestTokens:
        """The tokens that a run has recorded, as many as fit on a page."""
        shown = _TokenBudget.of(record.readings)
        groups = {
            "What agents are about to say: states through the vocabulary head": False,
            "What receivers read: messages among their input embeddings": True,
        }
        found = {
            title: {
                name: shown.tables(readings)
                for name, readings in _groups(record.readings, messages=messages).items()
            }
            for title, messages in groups.items()
        }
        return cls({title: each for title, each in found.items() if each}, shown.top, shown.note)


class _TokenBudget:
    """How much of the tokens fits on the page."""

    def __init__(self, samples: int, top: int, steps: int, note: str) -> None:
        self.samples, self.top, self.steps, self.note = samples, top, steps, note

    @classmethod
    def of(cls, readings: Sequence[LatentReading]) -> _TokenBudget:
        samples = max((len(r.nearest) for r in readings), default=0)
        most = max((len(s) for r in readings for s in r.nearest), default=0)
        top = max((len(near) for r in readings for s in r.nearest for near in s), default=0)
        steps, count = most, len(readings)
        left: list[str] = []
        if count * samples * steps * top > CELLS and samples > 1:
            samples = 1
            left.append("the first sample")
        if count * samples * steps * top > CELLS and top > 3:
            top = 3
            left.append("the three nearest tokens")
        if count * samples * steps * top > CELLS:
            steps = max(1, CELLS // max(1, count * samples * top))
            left.append(f"{steps} of {most} latent steps")
        note = f"To keep the page small it shows only {', '.join(left)}." if left else ""
        return cls(samples, top, steps, note)

    def which(self, count: int) -> list[int]:
        """Latent steps to show, of so many."""
        if count <= self.steps:
            return list(range(count))
        if self.steps == 1:
            return [count - 1]
        return sorted({round(i * (count - 1) / (self.steps - 1)) for i in range(self.steps)})

    def tables(self, readings: Sequence[LatentReading]) -> list[TokenTable]:
        """A table for each sample that has latents."""
        count = min(max(len(reading.nearest) for reading in readings), self.samples)
        return [
            TokenTable(f"sample {number + 1}", self._rows(number, readings))
            for number in range(count)
            if any(reading.nearest[number] for reading in readings)
        ]

    def _rows(
        self, number: int, readings: Sequence[LatentReading]
    ) -> list[tuple[int, int, list[tuple[str, float]]]]:
        rows = []
        for reading in readings:
            steps = reading.nearest[number]
            for k in self.which(len(steps)):
                tokens = [(visible(token), value) for token, value in steps[k][: self.top]]
                rows.append((reading.round, k + 1, tokens))
        return rows


def visible(token: str) -> str:
    """A token with its spaces shown."""
    for sign, shown in ((" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("\r", "␍")):
        token = token.replace(sign, shown)
    return shorten(token, 24) or "∅"

"""What the latents do: norms, change from round to round, nearest tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latentmas.viz.charts import chart, charts, heat
from latentmas.viz.labels import shorten
from latentmas.viz.pages_old import Cell, figure, heading, mark, table, tag

if TYPE_CHECKING:
    from latentmas.runtime import Reading, RunRecord

__all__ = ["STYLE", "cosines", "norms", "tokens"]

STYLE = """\
.near td{white-space:nowrap}
.near i{color:var(--mute);font-style:normal;font-size:.8em;margin-left:.4em}
"""
CELLS = 6_000
"""Most tokens that a page shows: it stays under two megabytes."""


def norms(record: RunRecord) -> Iterator[str]:
    """Norms over latent steps, as multiples of the mean embedding norm where they arrive."""
    for title, is_message in (("Fed back by each agent", False), ("Messages", True)):
        groups = _groups(record.readings, messages=is_message)
        if not groups:
            continue
        yield heading(3, title)
        yield charts([_norm_chart(name, readings) for name, readings in groups.items()])
    rows: list[list[Cell]] = [
        [r.name, f"{r.embedding_norm:.4g}", *_span(r.norms), *_span(r.raw_norms)]
        for r in record.readings
    ]
    columns = ("latents", "embeddings", "first", "last", "raw, first", "raw, last")
    yield tag(
        "details",
        tag("summary", "The norms in numbers")
        + table("Mean norms, first and last latent step", columns, rows, numbers=range(1, 6)),
    )


def _norm_chart(name: str, readings: Sequence[Reading]) -> str:
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
    level = (1.0, f"embeddings of {shorten(readings[0].agent, 20)}")
    return chart(name, series, x=x, y="norm / embedding norm", level=level)


def _span(values: Sequence[float] | None) -> tuple[str, str]:
    return (f"{values[0]:.4g}", f"{values[-1]:.4g}") if values else ("", "")


def _groups(readings: Sequence[Reading], *, messages: bool) -> dict[str, list[Reading]]:
    """Readings by agent or edge, over the rounds."""
    found: dict[str, list[Reading]] = {}
    for reading in readings:
        if (reading.raw_norms is None) == messages:
            found.setdefault(reading.name.partition(".")[2], []).append(reading)
    return found


def cosines(record: RunRecord) -> Iterator[str]:
    """How alike the same states or message are in two rounds."""
    if not record.cosines:
        yield tag("p", "Nothing is made in two rounds of this run, so there is nothing to compare.")
        return
    rounds = range(1, record.plan.graph.rounds + 1)
    pairs = [(a, b) for a in rounds for b in rounds if a < b]
    pairs = [p for p in pairs if p[1] == p[0] + 1] if len(pairs) > 10 else pairs
    rows: list[list[Cell]] = []
    for name, grid in record.cosines.items():
        kind = "message" if "->" in name else "states"
        rows.append([name, kind, *(heat(grid[a - 1][b - 1]) for a, b in pairs)])
    columns = ("latents", "", *(f"{a} and {b}" for a, b in pairs))
    caption = "Mean cosine of the same latents in two rounds, step by step"
    yield table(caption, columns, rows, numbers=range(2, len(columns)))


# --- tokens -----------------------------------------------------------------------------------


def tokens(record: RunRecord) -> Iterator[str]:
    """Nearest tokens of each latent step: of every agent's states, then of every message."""
    shown = _Shown.of(record.readings)
    if shown.note:
        yield tag("p", mark(shown.note), class_="mute")
    agents = _groups(record.readings, messages=False)
    edges = _groups(record.readings, messages=True)
    if agents:
        yield heading(3, "What agents are about to say: states through the vocabulary head")
    for number, (name, readings) in enumerate(agents.items()):
        yield from _details(name, readings, shown, open_=number == 0)
    if edges:
        yield heading(3, "What receivers read: messages among their input embeddings")
    for name, readings in edges.items():
        yield from _details(name, readings, shown)


class _Shown:
    """How much of the tokens fits on the page."""

    def __init__(self, samples: int, top: int, steps: int, note: str) -> None:
        self.samples, self.top, self.steps, self.note = samples, top, steps, note

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> _Shown:
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


def _details(
    name: str,
    readings: Sequence[Reading],
    shown: _Shown,
    *,
    open_: bool = False,
) -> Iterator[str]:
    count = min(max(len(reading.nearest) for reading in readings), shown.samples)
    there = [n for n in range(count) if any(reading.nearest[n] for reading in readings)]
    parts = [_near(number, readings, shown) for number in there]
    inside = tag("summary", mark(name)) + charts(parts)
    yield f"<details{' open' if open_ else ''}>{inside}</details>"


def _near(number: int, readings: Sequence[Reading], shown: _Shown) -> str:
    """A table for one sample: rounds and latent steps downwards, tokens to the right."""
    lines, title = [], f"sample {number + 1}"
    for reading in readings:
        steps = reading.nearest[number]
        for k in shown.which(len(steps)):
            cells = "".join(
                f"<td>{tag('span', mark(visible(token)), class_='token')}<i>{value:.2f}</i></td>"
                for token, value in steps[k][: shown.top]
            )
            name = f"<td>{reading.round}</td><th scope='row'>{k + 1}</th>"
            lines.append(f"<tr>{name}{cells}</tr>")
    heads = (*(tag("th", text, scope="col") for text in ("round", "step")),)
    head = tag("tr", "".join(heads) + tag("th", "nearest", scope="col", colspan=shown.top))
    inside = tag("caption", mark(title)) + tag("thead", head) + tag("tbody", "\n".join(lines))
    return figure(title, tag("table", inside, class_="near"))


def visible(token: str) -> str:
    """A token with its spaces shown."""
    for sign, shown in ((" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("\r", "␍")):
        token = token.replace(sign, shown)
    return shorten(token, 24) or "∅"

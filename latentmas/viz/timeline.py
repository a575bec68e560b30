"""When each agent had its turn: prompt, latent steps, text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latentmas.viz.pages_old import mark, table, tag

if TYPE_CHECKING:
    from latentmas.runtime import RunRecord, TurnTimes

__all__ = ["STYLE", "timeline"]

STYLE = """\
.line{display:grid;grid-template-columns:clamp(6.5rem,28%,14rem) 1fr;gap:0 .6rem;align-items:center;
font-size:.85rem}
.line>span{overflow-wrap:anywhere}
.track{position:relative;height:1.1rem;background:var(--soft);border-radius:3px}
.track i{position:absolute;top:0;bottom:0;min-width:2px;border-radius:2px}
.prompt{background:var(--c0)}
.latent{background:repeating-linear-gradient(90deg,var(--c1) 0 5px,
color-mix(in srgb,var(--c1) 60%,var(--paper)) 5px 8px)}
.written{background:var(--c2)}
.transfer{background:var(--mute)}
.within{border:1.5px dashed var(--c1)}
.signs{display:flex;flex-wrap:wrap;gap:0 1rem;list-style:none;padding:0;margin:.4rem 0;
font-size:.85rem}
.signs i{display:inline-block;width:1.4rem;height:.8rem;margin-right:.35rem;border-radius:2px;
vertical-align:middle}
.axis{display:flex;justify-content:space-between;color:var(--mute);font-size:.8rem}
.chart{border:1px solid var(--line);border-radius:6px;padding:.5rem .7rem}
"""
_SIGNS = (
    ("prompt", "reads its prompt"),
    ("latent", "latent steps"),
    ("written", "writes text"),
    ("transfer", "links to receivers"),
    ("within", "ran in the batch of another agent"),
)


def timeline(record: RunRecord) -> Iterator[str]:
    """Bars from left to right, a line for each round and agent; then the seconds as a table."""
    turns = [turn for turn in record.turns if turn.op != "transfer" or turn.seconds]
    starts, now = [], 0.0
    for turn in turns:
        starts.append(now)
        now += turn.seconds
    total = max(now, 1e-9)
    spans = {turn.name: (start, turn) for start, turn in zip(starts, turns, strict=True)}
    lines: dict[tuple[int, str], list[str]] = {}
    found: set[str] = set()
    for start, turn in zip(starts, turns, strict=True):
        bars = lines.setdefault((turn.round, turn.agent), [])
        for style, left, width, tip in _bars(start, turn, spans):
            found.add(style)
            place = f"left:{100 * left / total:.2f}%;width:{100 * width / total:.2f}%"
            bars.append(tag("i", " ", class_=style, style=place, title=tip))
    rows = [
        tag(
            "div",
            tag("span", mark(f"round {round} · {agent}"))
            + tag("div", "".join(bars) or " ", class_="track"),
            class_="line",
        )
        for (round, agent), bars in lines.items()
    ]
    signs = "".join(
        tag("li", tag("i", " ", class_=style) + mark(text))
        for style, text in _SIGNS
        if style in found
    )
    axis = tag("span", "0 s") + tag("span", mark(_seconds(total)))
    axis = tag("div", tag("span", " ") + tag("div", axis, class_="axis"), class_="line")
    yield tag("ul", signs, class_="signs")
    yield tag("div", "\n".join([*rows, axis]), class_="chart")
    yield tag("details", tag("summary", "The timeline in numbers") + _table(turns))


def _bars(
    start: float, turn: TurnTimes, spans: dict[str, tuple[float, TurnTimes]]
) -> Iterator[tuple[str, float, float, str]]:
    """Style, start, length and tooltip of each bar of a turn."""
    if turn.op == "transfer":
        yield "transfer", start, turn.seconds, f"{turn.name}: {_seconds(turn.seconds)}"
        return
    if turn.within in spans:
        begun, other = spans[str(turn.within)]
        yield "within", begun, other.seconds, f"in the batch of {other.agent}"
        return
    read = turn.prompt_seconds
    if read:
        yield "prompt", start, read, f"prompt: {_seconds(read)}"
    style, what = ("latent", "latent steps") if turn.op == "rollout" else ("written", "text")
    rest = turn.seconds - read
    yield style, start + read, rest, f"{what}: {_seconds(rest)}"


def _table(turns: Sequence[TurnTimes]) -> str:
    rows = []
    for turn in turns:
        if turn.op == "transfer":
            parts = ("", "", "")
        else:
            rest = _seconds(turn.seconds - turn.prompt_seconds)
            latent = turn.op == "rollout"
            parts = (
                _seconds(turn.prompt_seconds),
                rest if latent else "",
                "" if latent else rest,
            )
        what = {"transfer": turn.name.partition(".")[2]}.get(turn.op, turn.agent)
        within = f" (with {turn.within.partition('.')[2]})" if turn.within else ""
        name = f"round {turn.round} · {what}{within}"
        rows.append((name, turn.op, *parts, _seconds(turn.seconds)))
    columns = ("turn", "step", "prompt", "latent steps", "text", "whole")
    return table("Seconds of each step", columns, rows, numbers=(2, 3, 4, 5))


def _seconds(value: float) -> str:
    if value >= 10:
        return f"{value:.1f} s"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"

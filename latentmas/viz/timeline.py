"""When each agent had its turn: prompt, latent steps, text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentmas.viz.pages import Table

if TYPE_CHECKING:
    from latentmas.runtime import RunRecord, TurnTimes

__all__ = ["Timeline"]

_SIGNS = {
    "prompt": "reads its prompt",
    "latent": "latent steps",
    "written": "writes text",
    "transfer": "links to receivers",
    "within": "ran in the batch of another agent",
}
"""CSS class of a bar → what it means."""


@dataclass(frozen=True)
class Bar:
    """A part of a turn; left and width are percentages of the whole run."""

    style: str
    left: str
    width: str
    tip: str


@dataclass(frozen=True)
class Timeline:
    """Bars from left to right, a line for each round and agent; the seconds as a table."""

    signs: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, Sequence[Bar]]]
    total: str
    numbers: Table

    @classmethod
    def of(cls, record: RunRecord) -> Timeline:
        """The timeline of a run."""
        turns = [turn for turn in record.turns if turn.op != "transfer" or turn.seconds]
        starts, now = [], 0.0
        for turn in turns:
            starts.append(now)
            now += turn.seconds
        total = max(now, 1e-9)
        spans = {turn.name: (start, turn) for start, turn in zip(starts, turns, strict=True)}
        lines: dict[str, list[Bar]] = {}
        for start, turn in spans.values():
            bars = lines.setdefault(f"round {turn.round} · {turn.agent}", [])
            bars += [
                Bar(style, f"{100 * left / total:.2f}", f"{100 * width / total:.2f}", tip)
                for style, left, width, tip in _bars(start, turn, spans)
            ]
        found = {bar.style for bars in lines.values() for bar in bars}
        signs = [(style, text) for style, text in _SIGNS.items() if style in found]
        return cls(signs, list(lines.items()), _seconds(total), _table(turns))


def _bars(
    start: float, turn: TurnTimes, spans: Mapping[str, tuple[float, TurnTimes]]
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


def _table(turns: Sequence[TurnTimes]) -> Table:
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
    return Table("Seconds of each step", columns, rows, numbers=(2, 3, 4, 5))


def _seconds(value: float) -> str:
    if value >= 10:
        return f"{value:.1f} s"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"

"""A run as a page: graph, answers, timeline, costs, latents; its text twin beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.atomic import write_text_atomically
from latentmas.errors import LatentMASError
from latentmas.viz.answers import LONGEST, Answers, Scores
from latentmas.viz.drawing.labels import shorten
from latentmas.viz.latents import NearestTokens, Norms, cosines
from latentmas.viz.pages import GraphView, Table, render, text_cell

if TYPE_CHECKING:
    from latentmas.runtime import RunRecord, RunResult, StepRecord, StepTimes

__all__ = ["report_run"]

_CHARACTERS = 200_000
"""Characters that are shown of all that agents said."""
_SECTIONS = {
    "answers": "Answers",
    "graph": "Graph",
    "timeline": "Timeline",
    "costs": "Costs",
    "tokens": "Nearest tokens",
    "norms": "Norms",
    "change": "Change from round to round",
    "texts": "What agents said",
}
_SIGNS = {
    "prompt": "reads its prompt",
    "latent": "latent steps",
    "written": "writes text",
    "transfer": "links to receivers",
    "within": "ran in the batch of another agent",
}
"""CSS class of a bar → what it means."""


def report_run(
    result: RunResult,
    path: Path,
    *,
    twin: RunResult | None = None,
    gold: Sequence[str | None] | None = None,
    scores: Scores | None = None,
    twin_scores: Scores | None = None,
    grader: str | None = None,
) -> Path:
    """Write the page; arguments and errors as `RunResult.report`."""
    record = result.record
    if record is None:
        raise LatentMASError(
            "this run has recorded nothing for a report; run it again with "
            'system.run(…, record=("report",))'
        )
    if twin is not None and len(twin.texts) != len(result.texts):
        raise LatentMASError(
            f"the twin has {len(twin.texts)} answers and the run {len(result.texts)}; run both "
            "over the same samples"
        )
    if twin is None and twin_scores is not None:
        raise LatentMASError("twin_scores requires twin, the run whose answers they score")
    answers = Answers.of(result, record.samples, twin, gold, scores, twin_scores, grader)
    shown = {
        "answers": answers,
        "graph": GraphView.of(record.plan),
        "timeline": _Timeline.of(record),
        "costs": _costs(result, twin),
        "tokens": NearestTokens.of(record) if record.readings else None,
        "norms": Norms.of(record) if record.readings else None,
        "change": cosines(record),
        "texts": _texts(result, len(record.samples)),
    }
    absent = {id for id, part in shown.items() if part is None and id != "change"}
    if not record.readings:
        absent.add("change")
    return write_text_atomically(
        path,
        render(
            "run.html.jinja",
            title=f"{record.plan.graph.name}: a run",
            name=record.plan.graph.name,
            facts=_facts(result, record),
            sections={id: heading for id, heading in _SECTIONS.items() if id not in absent},
            batches=record.batches,
            twin_times=_Timeline.of(twin.record) if twin and twin.record else None,
            **shown,
        ),
    )


def _facts(result: RunResult, record: RunRecord) -> list[str]:
    counts = {
        "sample": len(result.texts),
        "batch": record.batches,
        "agent": len(record.plan.graph.agents),
        "round": record.plan.graph.rounds,
    }
    facts = [f"{count} {_plural(noun, count)}" for noun, count in counts.items()]
    facts.append(f"{sum(turn.seconds for turn in record.turns):.2f} s")
    facts.append(f"executor {result.executor}")
    places = set(record.devices.values())
    named = record.devices if len(places) > 1 else dict.fromkeys(["all"], *places)
    return facts + [f"{key} on {where}" for key, where in named.items()]


# --- costs ------------------------------------------------------------------------------------

_COSTS = (
    ("prompt positions", "prompt_tokens"),
    ("latent steps", "latent_steps"),
    ("text tokens", "new_tokens"),
    ("tool calls", "tool_calls"),
    ("added tokens", "added_tokens"),
    ("seconds", "seconds"),
)


def _costs(result: RunResult, twin: RunResult | None) -> list[Table]:
    parts = [_cost_table("What each turn cost, all samples together", result.accounting)]
    if twin is None:
        return parts
    parts.append(_cost_table("The text twin", twin.accounting))
    totals = [[_total(run.accounting, name) for _, name in _COSTS] for run in (result, twin)]
    rows = [
        (what, _number(own), _number(other), f"{other / own:.2f}" if own else "–")
        for (what, _), own, other in zip(_COSTS, *totals, strict=True)
        if own or other
    ]
    heads = ("", "this run", "text twin", "twin / run")
    return [Table("Run and text twin", heads, rows, numbers=(1, 2, 3)), *parts]


def _cost_table(title: str, records: Sequence[StepRecord]) -> Table:
    shown = [item for item in _COSTS if item[1] != "added_tokens" or _total(records, item[1])]
    rows = [
        (f"round {r.round} · {r.agent}", r.op, *(_number(getattr(r, name)) for _, name in shown))
        for r in records
    ]
    rows.append(("total", "", *(_number(_total(records, name)) for _, name in shown)))
    heads = ("turn", "step", *(what for what, _ in shown))
    return Table(title, heads, rows, numbers=range(2, len(heads)), total=True)


def _total(records: Sequence[StepRecord], name: str) -> float:
    total: float = sum(getattr(record, name) for record in records)
    return total


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


# --- text -------------------------------------------------------------------------------------


def _texts(result: RunResult, count: int) -> Table | None:
    """What went along text edges."""
    shown = max(40, min(LONGEST, _CHARACTERS // max(1, count * len(result.text_messages))))
    rows = [
        (
            name.removesuffix(".text").replace(".", " · ", 1),
            f"{number + 1}",
            text_cell(shorten(text, shown)),
        )
        for name, texts in result.text_messages.items()
        for number, text in enumerate(texts[:count])
    ]
    return Table("Texts on their way", ("turn", "sample", "text"), rows) if rows else None


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("ch") else "s")


# --- timeline ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bar:
    """A part of a turn; left and width are percentages of the whole run."""

    style: str
    left: str
    width: str
    tip: str


@dataclass(frozen=True)
class _Timeline:
    """Bars from left to right, a line for each round and agent; the seconds as a table."""

    signs: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, Sequence[_Bar]]]
    total: str
    numbers: Table

    @classmethod
    def of(cls, record: RunRecord) -> _Timeline:
        """The timeline of a run."""
        turns = [turn for turn in record.turns if turn.op != "transfer" or turn.seconds]
        starts, now = [], 0.0
        for turn in turns:
            starts.append(now)
            now += turn.seconds
        total = max(now, 1e-9)
        spans = {turn.name: (start, turn) for start, turn in zip(starts, turns, strict=True)}
        lines: dict[str, list[_Bar]] = {}
        for start, turn in spans.values():
            bars = lines.setdefault(f"round {turn.round} · {turn.agent}", [])
            bars += [
                _Bar(style, f"{100 * left / total:.2f}", f"{100 * width / total:.2f}", tip)
                for style, left, width, tip in _bars(start, turn, spans)
            ]
        found = {bar.style for bars in lines.values() for bar in bars}
        signs = [(style, text) for style, text in _SIGNS.items() if style in found]
        return cls(signs, list(lines.items()), _seconds(total), _turn_table(turns))


def _bars(
    start: float, turn: StepTimes, spans: Mapping[str, tuple[float, StepTimes]]
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


def _turn_table(turns: Sequence[StepTimes]) -> Table:
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

"""A run as a page: graph, answers, timeline, costs, latents; its text twin beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.atomic import write_text_atomically
from latentmas.errors import LatentMASError
from latentmas.viz.labels import shorten
from latentmas.viz.latents import NearestTokens, Norms, cosines
from latentmas.viz.pages import Cell, GraphView, Table, render
from latentmas.viz.timeline import Timeline

if TYPE_CHECKING:
    from latentmas.runtime import RunRecord, RunResult, TurnRecord

__all__ = ["report_run"]

_LONGEST, _CHARACTERS = 4_000, 200_000
"""Characters of a text that are shown, and of all that agents said."""
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


def report_run(result: RunResult, path: Path, *, twin: RunResult | None = None) -> Path:
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
    shown = {
        "answers": _answers(result, record, twin),
        "graph": GraphView.of(record.plan),
        "timeline": Timeline.of(record),
        "costs": _costs(result, twin),
        "tokens": NearestTokens.of(record) if record.readings else None,
        "norms": Norms.of(record) if record.readings else None,
        "change": cosines(record),
        "texts": _texts(result, len(record.samples)),
    }
    absent = {id for id, part in shown.items() if part is None}
    absent |= {"change"} if not record.readings else set()
    return write_text_atomically(
        path,
        render(
            "run.html.jinja",
            title=f"{record.plan.graph.name}: a run",
            name=record.plan.graph.name,
            facts=_facts(result, record),
            sections={id: heading for id, heading in _SECTIONS.items() if id not in absent},
            batches=record.batches,
            twin_times=Timeline.of(twin.record) if twin and twin.record else None,
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


def _answers(result: RunResult, record: RunRecord, twin: RunResult | None) -> Table:
    rows: list[Sequence[Cell]] = []
    for number, sample in enumerate(record.samples):
        asked = "\n".join(
            text if len(sample) == 1 else f"{name}: {text}" for name, text in sample.items()
        )
        row = [f"{number + 1}", asked, _answer(result, number)]
        texts = row + ([_answer(twin, number)] if twin else [])
        rows.append([_cell(shorten(text, _LONGEST)) for text in texts])
    heads = ["sample", "asked", "answer", *["text twin's answer"] * (twin is not None)]
    left = len(result.texts) - len(rows)
    more = f"; {left} more ran" if left else ""
    more += f"; {len(result.errors)} failed in all" if result.errors else ""
    return Table(f"The first samples{more}", heads, rows)


def _answer(result: RunResult, number: int) -> str:
    """What is shown in the answer's place where a sample has failed."""
    error = result.errors.get(number)
    return result.texts[number] if error is None else f"failed: {error}"


def _cell(text: str) -> Cell:
    """Long texts ask for some width."""
    return (text, "min-width:14rem") if len(text) > 40 else text


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


def _cost_table(title: str, records: Sequence[TurnRecord]) -> Table:
    shown = [item for item in _COSTS if item[1] != "added_tokens" or _total(records, item[1])]
    rows = [
        (f"round {r.round} · {r.agent}", r.op, *(_number(getattr(r, name)) for _, name in shown))
        for r in records
    ]
    rows.append(("total", "", *(_number(_total(records, name)) for _, name in shown)))
    heads = ("turn", "step", *(what for what, _ in shown))
    return Table(title, heads, rows, numbers=range(2, len(heads)), total=True)


def _total(records: Sequence[TurnRecord], name: str) -> float:
    total: float = sum(getattr(record, name) for record in records)
    return total


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


# --- text -------------------------------------------------------------------------------------


def _texts(result: RunResult, count: int) -> Table | None:
    """What went along text edges."""
    shown = max(40, min(_LONGEST, _CHARACTERS // max(1, count * len(result.spoken))))
    rows = [
        (name.removesuffix(".text").replace(".", " · ", 1), f"{number + 1}", shorten(text, shown))
        for name, texts in result.spoken.items()
        for number, text in enumerate(texts[:count])
    ]
    return Table("Texts on their way", ("turn", "sample", "text"), rows) if rows else None


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("ch") else "s")

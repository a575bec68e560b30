"""A run as a page: graph, answers, timeline, costs, latents; its text twin beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.errors import LatentMASError
from latentmas.spec import write_text_atomically
from latentmas.viz import charts, latents, timeline
from latentmas.viz.labels import shorten
from latentmas.viz.pages import graph_section
from latentmas.viz.pages_old import Cell, heading, mark, page, table, tag

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
    "spoken": "What agents said",
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
    parts = {
        "answers": _answers(result, record, twin),
        "graph": list(graph_section(record.plan)),
        "timeline": _timelines(record, twin),
        "costs": _costs(result, twin),
        "tokens": list(latents.tokens(record)) if record.readings else [],
        "norms": list(latents.norms(record)) if record.readings else [],
        "change": list(latents.cosines(record)) if record.readings else [],
        "spoken": _spoken(result, len(record.samples)),
    }
    parts = {id: part for id, part in parts.items() if part}
    body = [*_head(result, record, parts), *_sections(parts)]
    name = f"{record.plan.graph.name}: a run"
    style = charts.STYLE + timeline.STYLE + latents.STYLE
    return write_text_atomically(path, page(name, body, style=style))


def _head(result: RunResult, record: RunRecord, parts: dict[str, list[str]]) -> Iterator[str]:
    plan = record.plan
    counts = {
        "sample": len(result.texts),
        "batch": record.batches,
        "agent": len(plan.graph.agents),
        "round": plan.graph.rounds,
    }
    facts = [f"{count} {_plural(noun, count)}" for noun, count in counts.items()]
    facts.append(f"{sum(turn.seconds for turn in record.turns):.2f} s")
    facts.append(f"executor {result.executor}")
    places = set(record.devices.values())
    named = record.devices if len(places) > 1 else dict.fromkeys(["all"], *places)
    facts += [f"{key} on {where}" for key, where in named.items()]
    yield heading(1, plan.graph.name)
    yield tag("p", mark(" · ".join(facts)), class_="mute")
    links = (tag("a", mark(_SECTIONS[id]), href=f"#{id}") for id in parts)
    yield tag("nav", "\n".join(links), aria_label="Sections")


def _sections(parts: dict[str, list[str]]) -> Iterator[str]:
    for id, part in parts.items():
        yield tag("section", "\n".join([heading(2, _SECTIONS[id], id), *part]))


def _answers(result: RunResult, record: RunRecord, twin: RunResult | None) -> list[str]:
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
    return [table(f"The first samples{more}", heads, rows)]


def _answer(result: RunResult, number: int) -> str:
    """What is shown in the answer's place where a sample has failed."""
    error = result.errors.get(number)
    return result.texts[number] if error is None else f"failed: {error}"


def _cell(text: str) -> Cell:
    """Long texts ask for some width."""
    return (text, "min-width:14rem") if len(text) > 40 else text


def _timelines(record: RunRecord, twin: RunResult | None) -> list[str]:
    parts = list(timeline.timeline(record))
    if record.batches > 1:
        note = f"Seconds of {record.batches} batches, added up turn by turn."
        parts.insert(0, tag("p", note, class_="mute"))
    if twin is not None and twin.record is not None:
        parts += [heading(3, "The text twin"), *timeline.timeline(twin.record)]
    return parts


# --- costs ------------------------------------------------------------------------------------

_COSTS = (
    ("prompt positions", "prompt_tokens"),
    ("latent steps", "latent_steps"),
    ("text tokens", "new_tokens"),
    ("tool calls", "tool_calls"),
    ("added tokens", "added_tokens"),
    ("seconds", "seconds"),
)


def _costs(result: RunResult, twin: RunResult | None) -> list[str]:
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
    return [table("Run and text twin", heads, rows, numbers=(1, 2, 3)), *parts]


def _cost_table(title: str, records: Sequence[TurnRecord]) -> str:
    shown = [item for item in _COSTS if item[1] != "added_tokens" or _total(records, item[1])]
    rows = [
        (f"round {r.round} · {r.agent}", r.op, *(_number(getattr(r, name)) for _, name in shown))
        for r in records
    ]
    rows.append(("total", "", *(_number(_total(records, name)) for _, name in shown)))
    heads = ("turn", "step", *(what for what, _ in shown))
    return table(title, heads, rows, numbers=range(2, len(heads)), total=True)


def _total(records: Sequence[TurnRecord], name: str) -> float:
    total: float = sum(getattr(record, name) for record in records)
    return total


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


# --- text -------------------------------------------------------------------------------------


def _spoken(result: RunResult, count: int) -> list[str]:
    """What went along text edges."""
    shown = max(40, min(_LONGEST, _CHARACTERS // max(1, count * len(result.spoken))))
    rows = [
        (name.removesuffix(".text").replace(".", " · ", 1), f"{number + 1}", shorten(text, shown))
        for name, texts in result.spoken.items()
        for number, text in enumerate(texts[:count])
    ]
    return [table("Texts on their way", ("turn", "sample", "text"), rows)] if rows else []


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("ch") else "s")

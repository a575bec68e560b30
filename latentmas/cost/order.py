"""Prompts whose order keeps their beginning from being read once: what stands behind a message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from latentmas.cost.explanation import StepCost
from latentmas.cost.prompts import Field, mark
from latentmas.engine import WORTHWHILE
from latentmas.plan import Decode, Plan, Rollout
from latentmas.prompts import render_prompt

__all__ = ["obstacles"]

NOTICEABLE = 0.2
"""Part of a prompt that is read again before anything is said about it."""


def obstacles(plan: Plan, rows: Sequence[StepCost]) -> Iterator[str]:
    """Agents that read text again: something new stands before it, or they run in a batch."""
    last = {agent: row for row in rows if row.op != "transfer" for agent in row.agents}
    for agent, row in last.items():
        if not row.positions or (row.reread or 0) < max(WORTHWHILE, NOTICEABLE * row.positions):
            continue
        if len(row.agents) > 1:
            yield f"{agent} runs in one batch with others; such a batch keeps nothing over rounds"
            continue
        turn = plan.steps[row.index]
        slot, fields = _order(plan, turn) if isinstance(turn, Rollout | Decode) else (None, [])
        if slot is None:
            continue
        what = " and ".join(f"`{name}`" for name in fields) or "the text after it"
        best = (row.reused or 0) + (row.reread or 0)
        yield (
            f"{agent} reads its slot `{slot}` before {what}: {row.reused} of about "
            f"{row.positions} positions can be reused over rounds; put {what} first to reuse "
            f"about {best}"
        )


def _order(plan: Plan, turn: Rollout | Decode) -> tuple[str | None, list[str]]:
    """The first slot of a prompt, and the sample fields that stand behind it."""
    marks = {mark(0): name for name in (*plan.graph.inputs, *turn.inputs)}
    scope = {name: Field(text) for text, name in marks.items()}
    try:
        rendered = render_prompt(plan.graph.agent(turn.agent), scope)
    except Exception:  # a filter or operator on the stand-in values, not on real ones
        return None, []
    text = "".join(chat.content for chat in rendered.turns)
    names = [marks[found] for found in re.findall("|".join(map(re.escape, marks)), text)]
    slot = next((name for name in names if name in turn.inputs), None)
    if slot is None:
        return None, []
    behind = names[names.index(slot) :]
    return slot, [name for name in dict.fromkeys(behind) if name in plan.graph.inputs]

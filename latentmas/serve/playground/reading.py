"""A plan and a result as plain data, for the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from latentmas.plan import Decode, Plan, Rollout, Step, Transfer
from latentmas.runtime import RunResult
from latentmas.serve.costs import costs_of
from latentmas.serve.limits import limits_of
from latentmas.spec import TEXT

__all__ = ["described", "read_result", "step_facts"]


def described(plan: Plan) -> dict[str, Any]:
    """What the page must know of a team."""
    graph = plan.graph
    thinkers = {step.agent for step in plan.steps if isinstance(step, Rollout)}
    return {
        "name": graph.name,
        "inputs": list(graph.inputs),
        "rounds": graph.rounds,
        "latentSteps": sorted(
            {graph.steps_of(agent) for agent in graph.agents if agent.name in thinkers}
        ),
        "output": plan.output,
        "edges": [
            {
                "id": edge.id,
                "label": f"{edge.source} → {edge.target} ({edge.slot})",
                "text": edge.link.kind == TEXT,
                "nextRound": bool(edge.delay),
            }
            for edge in graph.edges
        ],
        "limits": limits_of(plan),
    }


def step_facts(plan: Plan) -> list[dict[str, Any]]:
    """The steps of a run: who acts, and which parts of the drawing they light up."""
    return [
        {"op": step.op, "agent": step.agent, "round": step.round, "parts": _parts(plan, step)}
        for step in plan.steps
    ]


def _parts(plan: Plan, step: Step) -> list[str]:
    """Parts of the drawing: the agent, and the edges along which its text goes."""
    if isinstance(step, Transfer):
        return [f"edge {step.edge}"]
    parts = [f"agent {step.agent}"]
    if isinstance(step, Decode) and not step.final:
        parts += [
            f"edge {edge.id}"
            for edge in plan.graph.edges
            if edge.source == step.agent and edge.link.kind == TEXT
        ]
    return parts


def read_result(plan: Plan, result: RunResult) -> dict[str, Any]:
    """Answer, costs, texts on their way and nearest tokens of a run over one question.

    Seconds are those of the steps: reading the latents for the page takes time as well, and is left
    out.
    """
    record = result.record
    assert record is not None  # the run was asked for it
    steps = {step.output: step for step in plan.steps}
    return {
        "text": result.text,
        "finish": result.finish_reasons[0][0],
        "seconds": sum(turn.seconds for turn in record.turns),
        "costs": costs_of(result),
        "texts": list(_texts(plan, result)),
        "latents": [
            {
                "label": _label(plan, steps[reading.name]),
                "message": reading.raw_norms is None,
                "round": reading.round,
                "nearest": reading.nearest[0],
            }
            for reading in record.readings
        ],
    }


def _texts(plan: Plan, result: RunResult) -> Iterable[dict[str, Any]]:
    for step in plan.steps:
        texts = result.text_messages.get(step.output)
        if texts is not None:
            yield {"agent": step.agent, "round": step.round, "text": texts[0]}


def _label(plan: Plan, step: Step) -> str:
    if isinstance(step, Transfer):
        edge = next(edge for edge in plan.graph.edges if edge.id == step.edge)
        return f"{edge.source} → {edge.target} ({edge.slot})"
    return step.agent

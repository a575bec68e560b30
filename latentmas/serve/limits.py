"""Largest sizes of a run that visitors of the playground and clients of the MCP server may ask."""

from __future__ import annotations

from collections.abc import Mapping

from latentmas.plan import Plan

__all__ = ["beyond", "limits_of"]


def limits_of(plan: Plan) -> dict[str, int]:
    """Limits of a plan by option: some room above what it declares."""
    declared = [plan.graph.steps_of(agent) for agent in plan.graph.agents]
    written = [agent.max_new_tokens or 0 for agent in plan.graph.agents]
    return {
        "rounds": max(8, 2 * plan.graph.rounds),
        "latent_steps": max(64, 2 * max(declared)),
        "max_new_tokens": max(1024, *written),
    }


def beyond(asked: Mapping[str, int | None], limits: Mapping[str, int]) -> list[str]:
    """A message for each option that is larger than its limit."""
    return [
        f"{name} is {asked[name]}; this server allows at most {limit}"
        for name, limit in limits.items()
        if (asked.get(name) or 0) > limit
    ]

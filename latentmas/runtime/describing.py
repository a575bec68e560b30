"""A system in a few lines: what `print(system)` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["describe"]


def describe(system: System) -> str:
    """The team's name and depth, a line for each agent, and its links."""
    plan = system.plan
    graph, links = plan.graph, len(plan.links)
    agents = graph.agents
    width = max(len(agent.name) for agent in agents)
    lines = [
        f"System {graph.name!r}: {len(agents)} agent{'s' * (len(agents) != 1)}, "
        f"{graph.rounds} round{'s' * (graph.rounds != 1)}, {links} link{'s' * (links != 1)} of "
        f"{plan.n_parameters:,} weights, executor {system.executor}"
    ]
    for agent in agents:
        backbone = system.backbone_of(agent.name)
        steps = graph.steps_of(agent)
        dtype = str(backbone.dtype).removeprefix("torch.")
        lines.append(
            f"  {agent.name:<{width}}  {backbone.planned.spec.source}, {dtype} on "
            f"{backbone.device}, {steps} latent step{'s' * (steps != 1)}"
            + (", answers" if agent.name == plan.output else "")
        )
    return "\n".join(lines)

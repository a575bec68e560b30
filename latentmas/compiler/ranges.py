"""Numbers of a graph: rounds, latent steps, delays, token limits."""

from __future__ import annotations

from latentmas.errors import Problem
from latentmas.plan.steps import MAX_LATENT_STEPS
from latentmas.spec import AgentSpec, GraphSpec

__all__ = ["MAX_LATENT_STEPS", "MAX_ROUNDS", "range_problems"]

MAX_ROUNDS = 100
MAX_STEPS = 100_000
"""Maximum of the number of rounds times agents and edges."""


def range_problems(graph: GraphSpec) -> list[Problem]:
    """LM113 for each number that is out of range."""
    problems = []
    if not 1 <= graph.rounds <= MAX_ROUNDS:
        hint = f"choose rounds from 1 to {MAX_ROUNDS}"
        problems.append(Problem("LM113", "graph", f"rounds is {graph.rounds}", hint))
    elif graph.rounds * (len(graph.agents) + len(graph.edges)) > MAX_STEPS:
        message = f"its rounds times its agents and edges come to more than {MAX_STEPS:,} steps"
        problems.append(Problem("LM113", "graph", message, "use fewer rounds, agents or edges"))
    for agent in graph.agents:
        problems += _agent(graph, agent)
    for edge in graph.edges:
        if edge.delay not in (0, 1):
            hint = "delay is 0 (connect) or 1 (feedback)"
            problems.append(Problem("LM113", f"edge {edge.id}", f"delay is {edge.delay}", hint))
    return problems


def _agent(graph: GraphSpec, agent: AgentSpec) -> list[Problem]:
    problems = []
    steps, path = graph.steps_of(agent), f"agent {agent.name}"
    if steps == 0 and not agent.allow_empty:
        hint = "give at least 1, or set the agent's allow_empty to true for the null channel"
        problems.append(
            Problem("LM113", path, "latent_steps is 0: its messages would be empty", hint)
        )
    if not 0 <= steps <= MAX_LATENT_STEPS:
        hint = f"choose latent_steps from 1 to {MAX_LATENT_STEPS}"
        problems.append(Problem("LM113", path, f"latent_steps is {steps}", hint))
    if agent.max_new_tokens is not None and agent.max_new_tokens < 1:
        message = f"max_new_tokens is {agent.max_new_tokens}"
        problems.append(Problem("LM113", path, message, "choose at least 1"))
    if agent.max_tool_calls < 0:
        message = f"max_tool_calls is {agent.max_tool_calls}"
        problems.append(Problem("LM113", path, message, "choose at least 0"))
    return problems

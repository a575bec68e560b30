"""The tools of a plan's agents, found by name."""

from __future__ import annotations

from collections.abc import Mapping

from latentmas.errors import UnknownNameError
from latentmas.plan import Plan
from latentmas.tools import Tool
from latentmas.tools import tools as registered

__all__ = ["find_tools"]


def find_tools(plan: Plan, given: Mapping[str, Tool]) -> dict[str, Tool]:
    """Every tool that an agent names, from `given` or the registry.

    Raises:
        UnknownNameError: an agent's tool is in neither.
    """
    found: dict[str, Tool] = {}
    for agent in plan.graph.agents:
        for name in agent.tools:
            if name not in given and name not in registered:
                raise UnknownNameError(
                    f"tool of agent {agent.name!r}:", name, [*given, *registered.names()]
                )
            found[name] = given[name] if name in given else registered.get(name)
    return found

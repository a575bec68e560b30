"""The functions that a plan asks for: tools of its agents, text sources."""

from __future__ import annotations

from collections.abc import Mapping

from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.plan import Plan
from latentmas.spec import TextFunction
from latentmas.tools import Tool
from latentmas.tools import tools as registered

__all__ = ["check_text_functions", "find_tools"]


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


def check_text_functions(plan: Plan, given: Mapping[str, TextFunction]) -> None:
    """Every text source without a constant has a function.

    Raises:
        LatentMASError: naming the first that has none.
    """
    needed = {source.name for source in plan.graph.text_sources if source.text is None}
    missing = sorted(needed - set(given))
    if missing:
        raise LatentMASError(
            f"text source {missing[0]!r} has no function; pass "
            f'load(text_functions={{"{missing[0]}": function_of_a_sample}})'
        )

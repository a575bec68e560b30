"""Names mentioned in prompts: variables, and names in single braces.

`{question}` is plain text in a Jinja template, where `{{ question }}` may have been meant. Prompts
may contain JSON, LaTeX or code, so only names that the graph binds are considered, and a match
leads to a hint or a warning, never to an error.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

from jinja2 import TemplateSyntaxError

from latentmas.prompts import prompt_variables
from latentmas.spec import AgentSpec, GraphSpec

__all__ = ["braces_hint", "broken", "variables", "warn_of_single_braces"]


def variables(agent: AgentSpec) -> frozenset[str]:
    """The variables of an agent's prompt; empty if it cannot be parsed (LM301 reports that)."""
    try:
        return prompt_variables(agent)
    except (TemplateSyntaxError, RecursionError):
        return frozenset()


def broken(agent: AgentSpec) -> bool:
    """Whether a template of the agent cannot be parsed."""
    try:
        prompt_variables(agent)
    except (TemplateSyntaxError, RecursionError):
        return True
    return False


def in_single_braces(agent: AgentSpec, names: Iterable[str]) -> list[str]:
    """Names that a prompt contains in single braces but not as a variable."""
    text = f"{agent.prompt}\n{agent.system or ''}"
    found = set(re.findall(r"(?<!\{)\{\s*([A-Za-z_]\w*)\s*\}(?!\})", text))
    return [name for name in dict.fromkeys(names) if name in found - variables(agent)]


def braces_hint(agents: Iterable[AgentSpec], name: str) -> str:
    """The hint if an agent's prompt has that name in single braces; empty otherwise."""
    for agent in agents:
        if in_single_braces(agent, [name]):
            return (
                f"the prompt of {agent.name!r} has {{{name}}} in single braces, which is plain "
                f"text: write {{{{ {name} }}}}"
            )
    return ""


def warn_of_single_braces(graph: GraphSpec) -> None:
    """Warn about inputs and neighbours that a prompt has in single braces."""
    for agent in graph.agents:
        edges = [edge for edge in graph.edges if edge.target == agent.name]
        slots = [name for edge in edges for name in (edge.slot, edge.source) if name]
        for name in in_single_braces(agent, [*graph.inputs, *slots]):
            # Stack levels to skip: this function, Graph.compile and its decorator.
            warnings.warn(f"{braces_hint([agent], name)} if a value belongs there", stacklevel=4)

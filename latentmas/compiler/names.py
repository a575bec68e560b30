"""Checks of names, including tools': unique, well-formed, not reserved."""

from __future__ import annotations

from collections import Counter

from latentmas.errors import Problem
from latentmas.prompts import RESERVED
from latentmas.spec import AgentSpec, GraphSpec

__all__ = ["name_problems"]

LONGEST = 100
"""Maximum number of characters of a name, which becomes part of file names."""
RESULT = "result"
"""The tag around a tool's result."""


def name_problems(graph: GraphSpec) -> list[Problem]:
    """LM102 for duplicate names, LM108 for invalid names, LM118 for invalid tool names."""
    named = [("agent", agent.name) for agent in graph.agents]
    named += [("input", name) for name in graph.inputs]
    named += [("text source", source.name) for source in graph.text_sources]
    problems = [problem for kind, name in dict.fromkeys(named) for problem in _form(kind, name)]
    tools = [problem for agent in graph.agents for problem in _tools(agent)]
    return problems + _twice(named) + tools


def _tools(agent: AgentSpec) -> list[Problem]:
    problems, path = [], f"agent {agent.name}"
    for name, count in Counter(agent.tools).items():
        if count > 1:
            message = f"tool {name!r} is given {count} times"
            problems.append(Problem("LM118", path, message, "name each tool once"))
        if not name.isidentifier() or not name.isascii() or name == RESULT:
            message = f"tool name {name!r} cannot be a tag"
            hint = "use letters, digits and underscores; `result` is reserved for tool results"
            problems.append(Problem("LM118", path, message, hint))
    return problems


def _form(kind: str, name: str) -> list[Problem]:
    path = f"{kind} {name:.60}"
    if len(name) > LONGEST:
        message = f"a name of {len(name):,} characters"
        return [Problem("LM108", path, message, f"use at most {LONGEST} characters")]
    if not name.isidentifier() or not name.isascii():
        hint = "use letters, digits and underscores, not beginning with a digit"
        return [Problem("LM108", path, f"{name!r} cannot be a template variable", hint)]
    if name in RESERVED:
        return [
            Problem("LM108", path, f"{name!r} has a meaning in templates", f"call it {name}_1, say")
        ]
    return []


def _twice(named: list[tuple[str, str]]) -> list[Problem]:
    problems = []
    for name, count in Counter(name for _, name in named).items():
        if count > 1:
            kinds = sorted({kind for kind, other in named if other == name})
            message = f"{count} things are called {name!r} ({', '.join(kinds)})"
            problems.append(Problem("LM102", f"{kinds[0]} {name}", message, *_rename(kinds)))
    return problems


def _rename(kinds: list[str]) -> tuple[str, str]:
    """The fix in Python, where a notebook cell may have run twice, and in a graph file."""
    again = {"agent": "add_agent", "text source": "add_text_source"}
    if len(kinds) > 1 or kinds[0] not in again:
        return "rename all but one", ""
    call = f"graph.{again[kinds[0]]}(…, replace=True)"
    return f"rename all but one; to replace it, as when a notebook cell runs again, call {call}", (
        "rename all but one"
    )

"""Tools: every tool name is known, or may still be passed when the plan is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import takewhile

from latentmas.errors import Problem, closest
from latentmas.spec import GraphSpec
from latentmas.tools import tools as registered

__all__ = ["tool_problems"]


def tool_problems(graph: GraphSpec, given: Collection[str], *, at_load: bool) -> list[Problem]:
    """LM119 for each unknown tool.

    Args:
        graph: Graph whose agents to check.
        given: Names of tools passed as functions.
        at_load: Functions may still be passed to `Plan.load`. Then only a name one typo away
            from a known one is a problem.
    """
    known = list(dict.fromkeys([*given, *registered.names()]))
    problems = []
    for agent in graph.agents:
        for name in dict.fromkeys(agent.tools):
            if name in known or not name.isidentifier():
                continue
            slip = next((other for other in known if _one_slip(name, other)), None)
            if slip or not at_load:
                guess = slip or closest(name, known)
                problems.append(_unknown(agent.name, name, guess, known))
    return problems


def _one_slip(name: str, other: str) -> bool:
    """Whether one letter is missing, added or wrong, or two adjacent letters are swapped.

    A difference in digits is not a typo: `python3` may well be the user's own tool.
    """
    head = _in_common(name, other)
    a, b = name[head:], other[head:]
    tail = _in_common(a[::-1], b[::-1])
    a, b = a[: len(a) - tail], b[: len(b) - tail]
    if (a + b).isdigit():
        return False
    return (len(a) <= 1 and len(b) <= 1) or (len(a) == 2 and a == b[::-1])


def _in_common(a: str, b: str) -> int:
    """Length of the common prefix."""
    pairs = zip(a, b, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _unknown(agent: str, name: str, guess: str | None, known: Iterable[str]) -> Problem:
    meant = f"did you mean {guess!r}? " if guess else f"known: {', '.join(known) or 'none'}. "
    hint = (
        f"{meant}For a tool of your own, pass the function to add_agent(tools=[…]), or register it "
        f'with @latentmas.tools.register("{name}")'
    )
    in_file = (
        f"{meant}For a tool of your own, register it in a Python file and name that file: "
        f'`latentmas --plugin FILE.py …`; or, in Python, set graph.tools["{name}"] = function'
    )
    return Problem("LM119", f"agent {agent}", f"unknown tool {name!r}", hint, in_file)

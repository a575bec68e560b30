"""The functions that a plan asks for: tools of its agents, text sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latentmas.arguments import is_unicode
from latentmas.errors import LatentMASError, UnknownNameError, closest
from latentmas.plan import Plan
from latentmas.spec import TextFunction, TextSourceSpec
from latentmas.tools import Tool
from latentmas.tools import tools as registered

__all__ = ["check_text_functions", "resolve_tools", "outside_text"]


def resolve_tools(plan: Plan, given: Mapping[str, Tool]) -> dict[str, Tool]:
    """Every tool that an agent names, from `given` or the registry.

    Raises:
        UnknownNameError: An agent's tool is neither given nor registered.
        LatentMASError: A given tool is not a function, or no agent names it.
    """
    used = dict.fromkeys(name for agent in plan.graph.agents for name in agent.tools)
    _check_given("tool", given, used, "agent has it")
    found: dict[str, Tool] = {}
    for agent in plan.graph.agents:
        for name in agent.tools:
            if name not in given and name not in registered:
                raise UnknownNameError(
                    f"tool of agent {agent.name!r}:",
                    name,
                    [*given, *registered.names()],
                    fix=f'if it is your own, pass tools={{"{name}": function}} when you load the '
                    "team; on the command line, register it with "
                    f'@latentmas.tools.register("{name}") in a file that --plugin names',
                )
            found[name] = given[name] if name in given else registered.get(name)
    return found


def check_text_functions(plan: Plan, given: Mapping[str, TextFunction]) -> None:
    """Every text source without a constant has a function.

    Raises:
        LatentMASError: naming the first that has none, or a function of no text source.
    """
    needed = {source.name for source in plan.graph.text_sources if source.text is None}
    _check_given("text function", given, sorted(needed), "text source takes it")
    missing = sorted(needed - set(given))
    if missing:
        raise LatentMASError(
            f"text source {missing[0]!r} has no function; pass "
            f'load(text_functions={{"{missing[0]}": function_of_a_sample}})'
        )


def outside_text(
    source: TextSourceSpec,
    functions: Mapping[str, TextFunction],
    samples: Sequence[Mapping[str, Any]],
    rows: Sequence[int] | None = None,
) -> list[str]:
    """What a text source says for each sample of a batch.

    Args:
        source: a constant, or a name in `functions`.
        functions: by name.
        samples: B mappings of sample fields.
        rows: numbers of the samples in the run; None counts from 0.

    Raises:
        LatentMASError: naming the source and the sample on which it fails.
    """
    if source.text is not None:
        return [source.text] * len(samples)
    function, texts = functions[source.name], list[str]()
    for row, sample in zip(rows or range(len(samples)), samples, strict=True):
        where = f"text source {source.name!r}, sample {row}"
        try:
            texts.append(str(function(sample)))
        except Exception as error:
            raise LatentMASError(f"{where}: {type(error).__name__}: {error}") from error
        if not is_unicode(texts[-1]):
            raise LatentMASError(f"{where}: {texts[-1]!r:.60} is not Unicode; return UTF-8 text")
    return texts


def _check_given(kind: str, given: Mapping[str, object], used: Iterable[str], by_whom: str) -> None:
    """Whatever is given is used, and is a function."""
    if not isinstance(given, Mapping):
        found = type(given).__name__
        raise TypeError(f"{kind}s are a mapping, name → function; found {found}")
    names = list(used)
    for name, value in given.items():
        if name not in names:
            guess = closest(str(name), names)
            known = f"known: {', '.join(names) or 'none'}"
            hint = f"did you mean {guess!r}? {known}" if guess else known
            raise LatentMASError(f"{kind} {name!r} is given, but no {by_whom}; {hint}")
        if not callable(value):
            raise TypeError(f"{kind} {name!r} is {value!r:.60}, which is not a function")

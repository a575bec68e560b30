"""Opening what the user calls a team: a graph file, a preset or a saved folder."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentmas import templates
from latentmas.cli.support.console import note
from latentmas.cli.support.placing import places
from latentmas.errors import LatentMASError, closest
from latentmas.plan import Plan
from latentmas.spec import Graph

if TYPE_CHECKING:
    from latentmas.runtime import System

__all__ = ["files_are_trusted", "open_graph", "open_plan", "open_team", "trust_files"]

UNTRAINED = (
    "warning: its links are untrained (seed {seed}), so answers will be empty or meaningless; "
    "train them with `latentmas train`, or see `latentmas demo` for a team that is trained"
)
NEW_LINKS = "the links of a graph start untrained (seed {seed})"
_trust = False
"""Whether files may request code from a model's repository: a global option of the commands."""


def files_are_trusted() -> bool:
    """Whether files may request such code."""
    return _trust


def trust_files(trust_remote_code: bool) -> None:
    """Set whether files may request code from a model's repository."""
    global _trust
    _trust = trust_remote_code


def open_plan(graph: Path) -> Plan:
    """Compile what the user calls a graph, without weights.

    Args:
        graph: graph file or preset; or a saved team's folder, or the `latentmas.json` in it, whose
            plan is in its own files: no backbone is needed.

    Raises:
        LatentMASError: it cannot be read, or is not a valid graph.
    """
    folder = graph.parent if graph.name == "latentmas.json" and graph.is_file() else graph
    if not folder.is_dir():
        return _compiled(open_graph(graph))
    from latentmas.io import read_manifest, read_steadily

    return read_steadily(lambda: read_manifest(folder, trust_remote_code=_trust)[1], folder)


def open_graph(graph: Path) -> Graph:
    """Read a graph file; or the preset of that name.

    Raises:
        LatentMASError: the file cannot be read, or is not a graph.
    """
    if not graph.exists() and str(graph) in templates.names():
        template = templates.get(str(graph))
        parameters = inspect.signature(template).parameters.values()
        if not any(p.default is p.empty and p.kind is p.KEYWORD_ONLY for p in parameters):
            return template()
        raise LatentMASError(
            f"template {str(graph)!r} needs your own models; write a graph file with "
            f"`latentmas new my-team --template {graph}`"
        )
    guess = None if graph.exists() or graph.suffix else closest(str(graph), templates.names())
    if guess:
        raise LatentMASError(
            f"there is no file or preset {str(graph)!r}; did you mean the preset {guess!r}?"
        )
    return Graph.load(graph, trust_remote_code=_trust)


def open_team(
    team: Path,
    *,
    device: str,
    seed: int = 0,
    text: bool = False,
    check: Callable[[Plan], object] | None = None,
    answers: bool = True,
) -> System:
    """Load a team with its weights.

    Args:
        team: graph file or preset (its links are untrained), or a saved team: a folder, or a
            repository on the Hub.
        device: device of all agents.
        seed: random seed of untrained links.
        text: use the graph's text twin.
        check: called with the plan, for a graph file before any weights are loaded.
        answers: whether the team will answer questions, which untrained links make meaningless.

    Raises:
        LatentMASError: whatever is wrong with the graph, the folder or the device.
        typer.BadParameter: `text` for a saved folder.
    """
    if _is_saved(team):
        if text:
            raise typer.BadParameter("--text takes a graph file, not a saved team")
        from latentmas.runtime import System

        where = places(device, [])
        system = System.from_pretrained(team, trust_remote_code=_trust, **where)
        if check is not None:
            check(system.plan)
        return system
    graph = open_graph(team)
    plan = _compiled(graph.as_text() if text else graph)
    if check is not None:
        check(plan)
    if any(link.n_parameters and "head" not in link.needs for link in plan.links):
        note(f"{team}: {(UNTRAINED if answers else NEW_LINKS).format(seed=seed)}")
    where = places(device, [agent.name for agent in plan.graph.agents])
    return plan.load(seed=seed, **where)


def _compiled(graph: Graph) -> Plan:
    """The plan of a graph, with warnings as notes; only a plugin can add tools to it."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        plan = graph.compile(tools_at_load=False)
    for remark in remarks:
        note(f"warning: {remark.message}")
    return plan


def _is_saved(team: Path) -> bool:
    """Whether it is a folder, or can only be a repository of the hub."""
    named = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", team.as_posix())
    graph = team.suffix.lower() in (".yaml", ".yml", ".json")
    return team.is_dir() or (named is not None and not graph and not team.exists())

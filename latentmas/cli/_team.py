"""Opening what the user calls a team: a graph file or a saved folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentmas.cli._console import note
from latentmas.plan import Plan
from latentmas.spec import Graph

if TYPE_CHECKING:
    from latentmas.runtime import System

__all__ = ["open_team"]


def open_team(
    team: Path,
    *,
    device: str,
    seed: int = 0,
    text: bool = False,
    check: Callable[[Plan], object] | None = None,
) -> System:
    """Load a team with its weights.

    Args:
        team: graph file (its links are untrained), or a folder that `save_pretrained` wrote.
        device: for all agents.
        seed: of untrained links.
        text: take the graph's text twin.
        check: called with the plan, for a graph file before any weights are loaded.

    Raises:
        LatentMASError: whatever is wrong with the graph, the folder or the device.
        typer.BadParameter: `text` for a saved folder.
    """
    if team.is_dir():
        if text:
            raise typer.BadParameter("--text takes a graph file, not a saved team")
        from latentmas.runtime import System

        system = System.from_pretrained(team, device=device)
        if check is not None:
            check(system.plan)
        return system
    graph = Graph.load(team)
    plan = (graph.as_text() if text else graph).compile()
    if check is not None:
        check(plan)
    if plan.n_parameters:
        note(f"{team} is a graph file: its links start untrained (seed {seed})")
    return plan.load(device=device, seed=seed)

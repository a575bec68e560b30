"""Commands that look at saved teams without loading them: inspect, diff."""

from __future__ import annotations

from typing import Annotated

import typer

from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import Json

__all__ = ["diff", "inspect"]

SavedTeam = Annotated[
    str, typer.Argument(metavar="TEAM", help="Folder of a saved team, or hub id owner/name.")
]
Revision = Annotated[str | None, typer.Option(help="Revision on the hub: branch, tag or commit.")]


def inspect(team: SavedTeam, revision: Revision = None, json: Json = False) -> None:
    """Describe a saved team: links, norms, base models, trainings; exit code 1 on a problem."""
    from latentmas.io.inspect import inspect_team

    report = inspect_team(team, revision=revision)
    if json:
        emit_json(report.to_dict())
    else:
        emit(str(report))
    if report.problems:
        raise typer.Exit(1)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder of a saved team, or hub id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Folder or hub id of the other team.")],
    revision_a: Annotated[
        str | None, typer.Option(help="Revision of A on the hub: branch, tag or commit.")
    ] = None,
    revision_b: Annotated[
        str | None, typer.Option(help="Revision of B on the hub: branch, tag or commit.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare two saved teams, plan and weights; exit code 1 on a difference."""
    from latentmas.io.diff import diff_teams

    found = diff_teams(a, b, revision_a=revision_a, revision_b=revision_b)
    if json:
        emit_json(found.to_dict())
    else:
        emit(str(found))
    if not found.equal:
        raise typer.Exit(1)

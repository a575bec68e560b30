"""Commands that pass teams and results on: push, rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli._console import emit, emit_json, note
from latentmas.cli._options import Json
from latentmas.cli._team import files_are_trusted

__all__ = ["push", "rerun"]


def push(
    team: Annotated[
        Path, typer.Argument(metavar="TEAM", help="Folder of a saved team.", file_okay=False)
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository of the hub; made if need be.")
    ],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a repository that is made.")
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Branch; made if need be.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    json: Json = False,
) -> None:
    """Push a saved team to the hub in one commit; the token is HF_TOKEN's or `hf auth login`'s."""
    from latentmas.io import push_folder

    commit = push_folder(team, repository, private=private, revision=branch, commit_message=message)
    if json:
        emit_json({"repository": repository, "commit": commit})
        return
    note(f'next: lm.System.from_pretrained("{repository}", revision="{commit}")')
    emit(commit)


def rerun(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="What `latentmas run --manifest` wrote.")
    ],
    team: Annotated[
        str | None, typer.Option(help="Where the team is now: folder or hub id.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the rows are now.")] = None,
    device: Annotated[str | None, typer.Option(help="Without it, as then.")] = None,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File for the manifest of this run.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="If the manifest's models ask for it.")
    ] = False,
    json: Json = False,
) -> None:
    """Repeat a run and compare token by token; exit code 1 on a difference."""
    from latentmas.io import rerun

    found = rerun(
        manifest,
        team=team,
        data=data,
        device=device,
        save=save,
        trust_remote_code=trust_remote_code or files_are_trusted(),
    )
    if json:
        emit_json(found.to_dict())
    else:
        emit(str(found).splitlines()[0])
        for line in str(found).splitlines()[1:]:
            note(line)
    if not found.equal:
        raise typer.Exit(1)

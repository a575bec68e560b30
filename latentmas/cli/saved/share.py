"""Commands that share teams and repeat results: push, rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Json
from latentmas.cli.support.run_options import takes_run_options
from latentmas.cli.support.team import files_are_trusted

__all__ = ["push", "rerun"]


def push(
    team: Annotated[
        Path, typer.Argument(metavar="TEAM", help="Folder of a saved team.", file_okay=False)
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; created if missing.")
    ],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of the repository if it is created."),
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Branch to push to; created if missing.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
    json: Json = False,
) -> None:
    """Push a saved team to the hub in one commit, with the token of HF_TOKEN or `hf auth login`."""
    from latentmas.io import push_folder

    commit = push_folder(team, repository, private=private, revision=branch, commit_message=message)
    if json:
        emit_json({"repository": repository, "commit": commit})
        return
    note(f'next: lm.System.from_pretrained("{repository}", revision="{commit}")')
    emit(commit)


@takes_run_options(only=("executor", "batch_size", "refill_threshold"))
def rerun(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="Manifest that `latentmas run --manifest` wrote."),
    ],
    team: Annotated[
        str | None, typer.Option(help="Team to run: folder or hub id. Default: as recorded.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="JSONL file of the rows. Default: as recorded.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the models. Default: as recorded.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Manifest to write for this run.")
    ] = None,
    options: dict[str, Any] | None = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Allow code from the repositories of the recorded models."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Repeat a recorded run and compare it token by token; exit code 1 on a difference."""
    from latentmas.io import rerun

    found = rerun(
        manifest,
        team=team,
        data=data,
        device=device,
        save=save,
        trust_remote_code=trust_remote_code or files_are_trusted(),
        **(options or {}),
    )
    if json:
        emit_json(found.to_dict())
    else:
        emit(str(found).splitlines()[0])
        for line in str(found).splitlines()[1:]:
            note(line)
    if not found.equal:
        raise typer.Exit(1)

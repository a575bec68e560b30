"""Commands over the published code: import-prompts."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, note
from latentmas.errors import LatentMASError
from latentmas.interop import STYLES, TASKS

__all__ = ["import_prompts"]


def import_prompts(
    clone: Annotated[
        Path,
        typer.Argument(
            metavar="CLONE", help="Top folder of a clone of the RecursiveMAS repository."
        ),
    ],
    style: Annotated[
        str,
        typer.Option(
            help=f"Published system: {', '.join(STYLES)}.",
            autocompletion=lambda: list(STYLES),
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", dir_okay=False, help="Prompt pack to write: .json, .yaml or .yml."
        ),
    ],
    task: Annotated[str, typer.Option(help=f"Kind of task: {', '.join(TASKS)}.")] = "math",
    function: Annotated[
        bool,
        typer.Option(
            "--function", help="Ask for the function that `fn_name` names; with --task code."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Time limit for the clone's code, in seconds.")
    ] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Import the published prompts from a clone of RecursiveMAS; this runs code from the clone."""
    from latentmas.interop.prompts import import_prompts as taken
    from latentmas.prompts import write_prompt_pack

    if output.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise typer.BadParameter(
            f"--output must end in .json, .yaml or .yml, found {output.name!r}"
        )
    if function and task != "code":
        raise typer.BadParameter("--function requires --task code")
    if output.exists() and not force:
        raise LatentMASError(f"not overwritten: {output}; --force replaces existing files")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        pack = taken(clone, style, task=task, function=function, timeout=timeout)
    for remark in remarks:
        note(f"warning: {remark.message}")
    emit(str(write_prompt_pack(output, pack)))
    team = f"latentmas import-release {style} my-team --task {task}"
    note(f"next:\n  {team} --prompts {shlex.quote(str(output))}")

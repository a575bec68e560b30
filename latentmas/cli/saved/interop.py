"""Commands that import what was published: import-release, import-prompts."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, note
from latentmas.errors import LatentMASError
from latentmas.interop import STYLES, TASKS
from latentmas.spec import DType

__all__ = ["import_prompts", "import_release"]


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


def import_release(
    style: Annotated[
        str,
        typer.Argument(
            metavar="STYLE",
            help=f"Published system: {', '.join(STYLES)}.",
            autocompletion=lambda: list(STYLES),
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", file_okay=False, help="Folder to write the team to.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of a downloaded release. Default: download it from the hub."),
    ] = None,
    task: Annotated[str, typer.Option(help="Kind of task: math, code, choice or search.")] = "math",
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt pack (JSON or YAML); see import-prompts.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds. Default: the release's.")
    ] = None,
    latent_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of latent steps of every agent. Default: the release's."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Data type of the backbones.")] = "auto",
    revision: Annotated[
        str | None, typer.Option(help="Revision on the hub: branch, tag or commit.")
    ] = None,
) -> None:
    """Write a published RecursiveMAS system as a saved team, which only names its backbones."""
    from latentmas.interop import load_release

    system = load_release(
        style,
        source,
        task=task,
        prompts=prompts,
        rounds=rounds,
        latent_steps=latent_steps,
        dtype=_dtype(dtype),
        revision=revision,
    )
    emit(str(system.save_pretrained(out)))
    note(f'next:\n  latentmas run {out} "…"')


def _dtype(name: str) -> DType:
    from typing import get_args

    if name not in get_args(DType):
        raise typer.BadParameter(
            f"--dtype must be one of {', '.join(get_args(DType))}, found {name!r}"
        )
    return name  # type: ignore[return-value]

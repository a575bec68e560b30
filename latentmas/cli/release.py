"""Commands over what others published: import-release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, note
from latentmas.interop import STYLES
from latentmas.spec import DType

__all__ = ["import_release"]


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

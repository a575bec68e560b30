"""The command that runs a small version of the paper's tables and builds one report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Json, files_of, pairs

__all__ = ["paper"]


def paper(
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME or FILE",
            help="Preset: small (SmolLM2, 5 to 8 CPU hours), tiny (random models, to see the "
            "report), or a YAML file with the same fields.",
        ),
    ] = "small",
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Sections to run, separated by commas. Default: all.",
            autocompletion=lambda: files_of("studies.paper.sections"),
        ),
    ] = None,
    output_dir: Annotated[
        Path,
        typer.Option(
            "--output-dir",
            "-o",
            file_okay=False,
            help="Folder of the report; the same command again continues it, and several at the "
            "same time share the sections.",
        ),
    ] = Path("paper-out"),
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=FILE",
            help="Data file by name: gsm8k, gsm8k-train; may be repeated. Default: the Hub.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=SOURCE",
            help="Model by name: reader, answerer; hub id, folder or GGUF file. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds of every section. Default: the preset's."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device of the models. Default: a GPU if there is one.", show_default=False
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the sections and their state; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a small version of the paper's tables, and build one report, claim by claim."""
    names = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    files, models = pairs("--data", data or []), pairs("--model", model or [])
    from latentmas.studies.paper import plan_paper, run_paper

    if list_:
        found = plan_paper(preset, output_dir, only=names, seeds=seeds, models=models)
        if json:
            emit_json([vars(one) for one in found])
            return
        total = sum(one.seconds for one in found) / 3600
        lines = [
            f"{one.name:<10}{one.state:<9}{one.seconds / 60:>6.0f} min  "
            f"{one.seeds} seed{'s' if one.seeds != 1 else ' '}  {one.title}"
            for one in found
        ]
        emit("\n".join([*lines, f"about {total:.1f} CPU hours on one core in all"]))
        return
    with _resumable():
        report = run_paper(
            preset,
            output_dir,
            only=names,
            data=files,
            seeds=seeds,
            models=models,
            device=device,
        )
    emit_json(report.to_dict()) if json else emit(str(report))
    note(f"wrote {report.page}")
    failed = [name for name in report.failed if names is None or name in names]
    if failed:
        note(f"failed: {', '.join(failed)}; the same command runs them again")
        raise typer.Exit(1)


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C prints the command that continues."""
    from latentmas.studies.paper import PaperInterrupted

    try:
        yield
    except PaperInterrupted as stop:
        command = f"latentmas {shlex.join(sys.argv[1:])}"
        raise PaperInterrupted(stop.folder, stop.left, command) from None

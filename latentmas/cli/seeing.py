"""The command that shows a training: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli._console import emit, note
from latentmas.viz import training_report

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="Output folder of one training or several.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="Page to write; else OUT_DIR/report.html."
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the curves and heat maps as PNG too."),
    ] = None,
) -> None:
    """Show a training: its curves and depth maps as an HTML page. No weights."""
    emit(str(training_report(folder, output, png=png)))
    if png is not None:
        note(f"pictures: {png}")

"""The command that reports on a training run: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, note
from latentmas.viz import training_report

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="Output folder of one or more training runs.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="HTML page to write. Default: OUT_DIR/report.html.",
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for curves and heat maps as PNG files."),
    ] = None,
) -> None:
    """Report on a training run: curves and depth maps as an HTML page; loads no weights."""
    emit(str(training_report(folder, output, png=png)))
    if png is not None:
        note(f"pictures: {png}")

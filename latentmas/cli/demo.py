"""The command that shows the method on a small task, offline: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli._console import emit, emit_json, note
from latentmas.cli._options import Json

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what the demo writes.")
    ] = Path("latentmas-demo"),
    seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, for a first look.")] = False,
    pretrain: Annotated[
        bool,
        typer.Option("--pretrain", help="Only make the demo's models anew, in OUTPUT/backbones."),
    ] = False,
    json: Json = False,
) -> None:
    """Train and run a small team whose agents must share what they know. CPU, offline."""
    if pretrain:
        _pretrain(output / "backbones", seed, json)
        return
    from latentmas.demo.run import run_demo

    result = run_demo(output=output, seed=seed, quick=quick, json=json)
    if json:
        emit_json(result)


def _pretrain(folder: Path, seed: int, json: bool) -> None:
    from latentmas.demo.pretrain import pretrain

    def progress(agent: str, step: int, loss: float) -> None:
        note(f"{agent}: step {step}, loss {loss:.4g}")

    accuracy = pretrain(folder, seed=seed, progress=progress)
    if json:
        emit_json({"output": str(folder), "accuracy": accuracy})
        return
    for agent, share in accuracy.items():
        emit(f"{folder / agent}  {share:.1%} of look-ups right")

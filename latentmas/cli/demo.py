"""The command that shows the method on a small task, offline: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Json

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the demo's files.")
    ] = Path("latentmas-demo"),
    seed: Annotated[int, typer.Option(help="Random seed for data and training.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Short run for a first look.")] = False,
    pretrain: Annotated[
        bool,
        typer.Option("--pretrain", help="Only retrain the demo's models, into OUTPUT/backbones."),
    ] = False,
    real: Annotated[
        bool,
        typer.Option(
            "--real", help="Run the relay task on a real language model (SmolLM2 by default)."
        ),
    ] = False,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Model of the reader, with --real: hub id, folder or GGUF file.",
            show_default=False,
        ),
    ] = None,
    answerer: Annotated[
        str | None,
        typer.Option(
            help="Model of the answerer, with --real. Default: the reader's.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device of the models, with --real. Default: a GPU if there is one.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train and run a small team whose agents must share what they know; offline, on the CPU."""
    if not real and (reader or answerer or device):
        raise typer.BadParameter("--reader, --answerer and --device require --real")
    if pretrain:
        _pretrain(output / "backbones", seed, json)
        return
    result = (
        _real(output, reader, answerer, device, seed=seed, quick=quick, json=json)
        if real
        else _embedded(output, seed=seed, quick=quick, json=json)
    )
    if json:
        emit_json(result)


def _embedded(output: Path, *, seed: int, quick: bool, json: bool) -> dict[str, Any]:
    from latentmas.demo.run import run_demo

    return run_demo(output=output, seed=seed, quick=quick, json=json)


def _real(
    output: Path,
    reader: str | None,
    answerer: str | None,
    device: str | None,
    *,
    seed: int,
    quick: bool,
    json: bool,
) -> dict[str, Any]:
    from latentmas.demo.real import SMOLLM2, run_real_demo

    return run_real_demo(
        output,
        reader=reader or SMOLLM2,
        answerer=answerer,
        seed=seed,
        quick=quick,
        json=json,
        device=device,
    )


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

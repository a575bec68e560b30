"""The engine of an evaluation, from the options of the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli.support.options import files_of
from latentmas.cli.support.plugins import imported_plugins

if TYPE_CHECKING:
    from latentmas.evaluation import Engine

__all__ = ["EngineName", "EngineOptions", "GpusPerWorker", "Workers", "make_engine", "shows_all"]

EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="Engine that runs the rows: local, ray or torchrun. Default: torchrun in a process "
        "that torchrun has started, else local.",
        autocompletion=lambda: files_of("evaluation.engines"),
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of workers of the engine ray. Default: one for each GPU."),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs of a worker of the engine ray. Default: 1 if --device is a GPU, else 0.",
    ),
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", help="Option of the engine as name=value; repeatable."),
]


def make_engine(
    name: str | None,
    *,
    device: str,
    sharded: bool,
    workers: int | None,
    gpus: float | None,
    options: Mapping[str, Any],
) -> Engine | str:
    """The engine that the user asked for; `"local"` by name, so that nothing is imported for it.

    Args:
        name: name of the engine; None for that of the launcher, if there is one.
        device: device of the team.
        sharded: whether the user divides the rows, so that no launcher's engine is chosen.
        workers: number of workers.
        gpus: GPUs of a worker.
        options: further options of the engine.

    Raises:
        typer.BadParameter: an option belongs to another engine.
        UnknownNameError: the engine is unknown.
    """
    launched = "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") not in ("", "1")
    name = name or ("torchrun" if launched and not sharded else "local")
    if name == "torchrun" and sharded:
        raise typer.BadParameter("--engine torchrun divides the rows itself; leave out --shard")
    given = {"--workers": workers, "--num-gpus-per-worker": gpus}
    found = [flag for flag, value in given.items() if value is not None]
    if found and name != "ray":
        raise typer.BadParameter(f"{found[0]} requires --engine ray")
    if name == "local" and not options:
        return name
    from latentmas.evaluation import open_engine

    if name != "ray":
        return open_engine(name, **options)
    own: dict[str, Any] = {
        "workers": workers,
        "gpus_per_worker": gpus,
        "plugins": imported_plugins() or None,
    }
    own["device"] = None if device == "cpu" else device
    return open_engine(name, **{k: v for k, v in own.items() if v is not None}, **options)


def shows_all(engine: Engine | str) -> bool:
    """Whether this process shows progress: the first of those that a launcher has started."""
    return isinstance(engine, str) or getattr(engine, "rank", 0) == 0

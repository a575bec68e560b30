"""Options that several commands share, and `name=value` pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentmas.atomic import check_writable
from latentmas.errors import closest

__all__ = [
    "BatchSize",
    "Device",
    "Executor",
    "GraphFile",
    "Json",
    "LatentSteps",
    "Manifest",
    "OnError",
    "MaxNewTokens",
    "Rounds",
    "Team",
    "check_drawing",
    "check_outputs",
    "files_of",
    "pairs",
    "unknown",
]


def files_of(package: str) -> list[str]:
    """Names that files of a package of ours register, without importing it."""
    import latentmas

    folder = Path(latentmas.__path__[0], *package.split("."))
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


GraphFile = Annotated[
    Path,
    typer.Argument(metavar="GRAPH", help="Graph file, preset, or the folder of a saved team."),
]
Team = Annotated[
    Path,
    typer.Argument(metavar="TEAM", help="Graph file, preset, or a saved team (folder or hub id)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds; without it, as the graph says.")]
Device = Annotated[str, typer.Option(help="Where models run, such as cpu or cuda:0.")]
LatentSteps = Annotated[int | None, typer.Option(min=0, help="Latent steps of every agent.")]
Executor = Annotated[
    str,
    typer.Option(
        help="auto, cached, cuda_graph, offload, static or reference (slow).",
        autocompletion=lambda: ["auto", *files_of("runtime.executors")],
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="File for what `latentmas rerun` needs to repeat this."),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum tokens for every agent that writes. Default: the agents' own limits, "
        "else 256.",
    ),
]
OnError = Annotated[
    Literal["raise", "keep"],
    typer.Option(
        help="What to do with a row that cannot be run: stop (raise), or keep the other rows "
        "and report it (keep).",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows that run together.")]


def check_outputs(*paths: Path | None) -> None:
    """Check, before the work, that its files can be written.

    Raises:
        DataError: naming the first that cannot.
    """
    for path in paths:
        if path is not None:
            check_writable(path)


def check_drawing(do_sample: bool, **given: float | None) -> None:
    """Check that options of sampling are not given without it.

    Args:
        do_sample: whether `--do-sample` is given.
        **given: values of the options by name; None and 1.0 have no effect.

    Raises:
        typer.BadParameter: naming the options.
    """
    named = [
        f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, 1.0)
    ]
    if named and not do_sample:
        raise typer.BadParameter(
            f"{', '.join(named)} would have no effect without --do-sample, since the most likely "
            f"token is taken; add --do-sample, or leave {named[0]} out"
        )


def pairs(flag: str, given: Iterable[str]) -> dict[str, str]:
    """Read `name=value` pairs.

    Raises:
        typer.BadParameter: a pair has no `=` or no name, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise typer.BadParameter(f"{flag} takes name=value, found {text!r}")
        if name in found:
            raise typer.BadParameter(f"{flag} gives {name!r} twice")
        found[name] = value
    return found


def unknown(what: str, name: str, known: Iterable[str], instead: str) -> typer.BadParameter:
    """The usage error for a name that does not exist.

    Args:
        what: kind of thing.
        name: what was given.
        known: the names there are.
        instead: what to do when none of them is near.
    """
    guess = closest(name, known)
    hint = f"did you mean {guess!r}?" if guess else instead
    return typer.BadParameter(f"unknown {what} {name!r}; {hint}")

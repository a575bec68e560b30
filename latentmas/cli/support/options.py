"""Options that several commands share, and `name=value` pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from latentmas.atomic import check_writable
from latentmas.errors import closest
from latentmas.safe_data import parse_json

__all__ = [
    "Device",
    "GraphFile",
    "Json",
    "Manifest",
    "Rounds",
    "Team",
    "check_outputs",
    "files_of",
    "pairs",
    "unknown",
    "values",
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
Rounds = Annotated[int | None, typer.Option(min=1, help="Number of rounds. Default: the graph's.")]
Device = Annotated[str, typer.Option(help="Device of the models, such as cpu or cuda:0.")]
Manifest = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, help="Manifest to write, from which `latentmas rerun` repeats the run."
    ),
]


def check_outputs(*paths: Path | None) -> None:
    """Check, before the work, that its files can be written.

    Raises:
        DataError: naming the first that cannot.
    """
    for path in paths:
        if path is not None:
            check_writable(path)


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
            raise typer.BadParameter(f"{flag} sets {name!r} twice")
        found[name] = value
    return found


def values(flag: str, given: Iterable[str]) -> dict[str, Any]:
    """Read `name=value` pairs whose values are JSON, or else text.

    Raises:
        typer.BadParameter: a pair has no `=` or no name, or a name comes twice.
    """
    return {name: _value(text) for name, text in pairs(flag, given).items()}


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


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

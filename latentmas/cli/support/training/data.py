"""Training rows from the command line: a JSONL file, a published set, or a set on the Hub."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer

from latentmas.cli.support.console import note
from latentmas.cli.support.options import unknown
from latentmas.spec import read_jsonl

__all__ = ["answer_field_of", "check_agents", "read_training"]

HUB, PUBLISHED = "hub:", "published:"


def read_training(data: str, columns: str | None) -> list[dict[str, Any]]:
    """Training rows.

    Args:
        data: Path of a file, or `hub:owner/name`, with `@revision` for a certain commit.
        columns: `published:NAME` for data with the columns of a published set.

    Raises:
        typer.BadParameter: an argument has another form, or the set is unknown.
        DataError: the rows cannot be read or downloaded, or lack columns.
    """
    from latentmas.training import published_sets, read_published

    form = _form(columns, published_sets)
    if not data.startswith(HUB):
        return read_jsonl(data).rows if form is None else read_published(form, path=Path(data))
    name, _, revision = data.removeprefix(HUB).partition("@")
    if name.count("/") != 1:
        raise typer.BadParameter(f"--data takes a file or hub:owner/name, found {data!r}")
    owner, _, own = name.partition("/")
    if owner == "RecursiveMAS" and own in published_sets:
        if form not in (None, own):
            raise typer.BadParameter(f"--columns published:{form} does not fit {name}")
        return read_published(own, revision=revision or None)
    from latentmas.tables import download_table

    if form is not None:
        raise typer.BadParameter(f"{name} is not a published set; --columns takes a local file")
    return download_table(name, split="train", revision=revision or None).rows


def _form(columns: str | None, known: Collection[str]) -> str | None:
    """Name of the published set whose columns the data has."""
    if columns is None:
        return None
    name = columns.removeprefix(PUBLISHED)
    if name == columns:
        raise typer.BadParameter(f"--columns takes published:NAME, found {columns!r}")
    if name not in known:
        raise unknown("published training set", name, known, f"known: {', '.join(known)}")
    return name


def answer_field_of(rows: list[dict[str, Any]], given: str | None) -> str | None:
    """Field that holds the answer: as given, else that of a published set."""
    return given or getattr(rows, "answer_field", None)


def check_agents(rows: list[dict[str, Any]], agents: Collection[str], targets: object) -> None:
    """Say which agents a published set has no text for.

    Args:
        rows: Training rows; other rows than those of a published set pass.
        agents: Agents of the team.
        targets: Fields that the user names; if there are any, they decide.

    Raises:
        DataError: the set has texts for none of the agents.
    """
    published = getattr(rows, "published", None)
    if published is None or targets:
        return
    left = published.without_text(agents)
    if left:
        note(
            f"{published.source} has no texts for {', '.join(left)}; where a loop needs one, they "
            f"learn from {answer_field_of(rows, None)!r}"
        )

"""The command that lists benchmarks: benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import Json, files_of, unknown

if TYPE_CHECKING:
    from latentmas.evaluation import Benchmark

__all__ = ["benchmarks"]


def benchmarks(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Benchmark to describe in full. Default: list all benchmarks.",
            autocompletion=lambda: files_of("evaluation.benchmarks"),
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List benchmarks with their data, grader and licence, or describe one."""
    from latentmas.evaluation import benchmarks as registry

    if name is None:
        known = [registry.get(one) for one in registry.names()]
        if json:
            emit_json({"benchmarks": [one.to_dict() for one in known]})
        else:
            emit(_listing(known))
        return
    if name not in registry:
        raise unknown("benchmark", name, registry.names(), "`latentmas benchmarks` lists them all")
    one = registry.get(name)
    emit_json(one.to_dict()) if json else emit(_described(one))


def _listing(known: list[Benchmark]) -> str:
    """A table with one line per benchmark."""
    head = ("name", "title", "split", "rows", "grader", "licence")
    table = [head] + [
        (
            one.name,
            one.title,
            one.split,
            "?" if one.rows is None else f"{one.rows:,}",
            one.grader,
            one.licence.partition(";")[0]
            + (" · gated" if one.gated else "")
            + ("" if one.revision else " · not pinned"),
        )
        for one in known
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)


def _described(one: Benchmark) -> str:
    """Everything about one benchmark."""
    columns = [name if isinstance(name, str) else " or ".join(name) for name in one.columns]
    facts = {
        "name": one.name,
        "title": one.title,
        "data": " ".join(filter(None, (one.source, one.config, one.split))),
        "revision": one.revision or "not pinned",
        "access": "granted on request by its owners" if one.gated else "open",
        "rows": "unknown" if one.rows is None else f"{one.rows:,}",
        "columns": ", ".join(columns),
        "grader": one.grader + "".join(f" {k}={v}" for k, v in one.grader_options.items()),
        "options": ", ".join(f"{key}={value}" for key, value in one.options.items()) or "none",
        "instruction": one.instruction or "none",
        "examples": str(len(one.examples)),
        "licence": one.licence,
        "citation": one.citation,
        "notes": one.notes,
    }
    return "\n".join(f"{key:<13}{value}" for key, value in facts.items() if value)

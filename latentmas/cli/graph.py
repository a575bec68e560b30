"""Commands over graphs, without weights: templates, new, check, plan, draw, schema."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.new_team import (
    roles_of,
    schema_text,
    summary_of,
    team_files,
    write_files,
)
from latentmas.cli.support.options import GraphFile, Json, Rounds, unknown
from latentmas.cli.support.team import open_plan
from latentmas.cost import HARDWARE
from latentmas.errors import CODES, GraphError, LatentMASError, Problem
from latentmas.templates import names

__all__ = ["check", "draw", "new", "plan", "schema", "templates"]


def templates(json: Json = False) -> None:
    """List the templates that `new` can start from."""
    found = {name: summary_of(name) for name in names()}
    if json:
        emit_json(
            {
                "templates": [
                    {"name": name, "summary": summary, "roles": list(roles_of(name))}
                    for name, summary in found.items()
                ]
            }
        )
        return
    width = max(map(len, found), default=0)
    for name, summary in found.items():
        emit(f"{name:<{width}}  {summary}".rstrip())


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the team and of its graph file.")
    ],
    template: Annotated[
        str,
        typer.Option(
            help="Template to start from; see `latentmas templates`.", autocompletion=names
        ),
    ] = "sequential",
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder to write to.")] = Path(),
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Model for the next role (hub id or folder); may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Write an editable graph file and its prompts from a template."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise typer.BadParameter(f"{name!r} is not a file name; use letters, digits, - and _")
    agents = [agent for names in roles_of(template).values() for agent in names]
    if len(backbone or []) > len(agents):
        takes = (
            f"{len(agents)} ({', '.join(agents)})" if agents else "none: it comes with its models"
        )
        given = f"--backbone is given {len(backbone or [])} times"
        raise typer.BadParameter(f"{given}; template {template!r} takes {takes}")
    files = team_files(template, name, output, backbone or [])
    write_files(files, force=force)
    for path in files:
        emit(str(path))
    if not backbone:
        note(
            "it uses the demo's models, too small for real answers; replace them, or use --backbone"
        )
    graph = shlex.quote(str(next(iter(files))))
    train = f"train {graph} --data rows.jsonl --output-dir out"
    commands = (f"check {graph}", f"plan {graph}", train)
    note("\n".join(["next:", *(f"  latentmas {command}" for command in commands)]))


def check(graph: GraphFile, json: Json = False) -> None:
    """Compile a graph and report every problem at once, with its fix; loads no weights."""
    try:
        compiled = open_plan(graph)
    except LatentMASError as error:
        if not json:
            raise
        emit_json({"ok": False, "problems": [p.to_dict() for p in _problems(error, graph)]})
        raise typer.Exit(1) from error
    if json:
        facts = {"name": compiled.graph.name, "digest": compiled.digest}
        emit_json({"ok": True, "problems": []} | facts)
        return
    spec = compiled.graph
    emit(
        f"fine: {spec.name}: {len(spec.agents)} agents, {spec.rounds} rounds, "
        f"{len(compiled.links)} links, {compiled.n_parameters:,} link parameters"
    )


def plan(
    graph: GraphFile,
    rounds: Rounds = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write the plan to.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Machine to estimate a run on: h200, h100, a100, l4, rtx4090 or cpu.",
            autocompletion=lambda: list(HARDWARE),
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of samples that run together.")] = 1,
    input_tokens: Annotated[
        int, typer.Option(min=0, help="Number of tokens in each sample field.")
    ] = 100,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of tokens that each agent writes. Default: the agents' own limits, else "
            "256.",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Executor whose memory to estimate: cached, cuda_graph, offload, openvino or "
            "static."
        ),
    ] = "cached",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Show what a graph compiles to, or estimate a run of it on a machine; loads no weights.

    Without --hardware: backbones, links with exact sizes, and the schedule. With it: operations,
    bytes, memory and seconds of each step and in total, as a lower bound from a roofline.
    """
    compiled = open_plan(graph)
    if rounds is not None:
        compiled = compiled.replace(rounds=rounds)
    if output is not None:
        note(f"wrote {compiled.save(output)}")
    if hardware is None:
        emit(compiled.to_json() if json else compiled.summary())
        return
    if hardware not in HARDWARE:
        raise unknown("hardware", hardware, HARDWARE, f"choose from {', '.join(HARDWARE)}")
    explanation = compiled.explain(
        hardware,
        batch=batch,
        input_tokens=input_tokens,
        max_new_tokens=max_new_tokens,
        executor=executor,
    )
    if json:
        emit_json(explanation.to_dict())
    else:
        emit(str(explanation))


def draw(
    graph: GraphFile,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .svg, .html, .png, .mmd or .dot."),
    ],
) -> None:
    """Draw a graph offline; loads no weights."""
    emit(str(open_plan(graph).draw(output)))


def schema() -> None:
    """Print the JSON Schema of graph files, for completion in editors."""
    emit(schema_text().rstrip("\n"))


def _problems(error: LatentMASError, graph: Path) -> tuple[Problem, ...]:
    if isinstance(error, GraphError):
        return error.problems
    code, _, message = str(error).partition(" ")
    if code in CODES:
        return (Problem(code, str(graph), message, f"see `latentmas errors {code}`"),)
    hint = "give a readable graph file, with the files that it names beside it"
    return (Problem("LM100", str(graph), str(error), hint),)

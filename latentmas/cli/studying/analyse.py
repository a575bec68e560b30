"""The command that looks at what a team's messages hold: analyse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Device, Json, Rounds, Team, check_outputs, files_of, pairs
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.task import open_task
from latentmas.cli.support.task_flags import AnswerField, Fields, Limit
from latentmas.cli.support.team import open_team

__all__ = ["analyse"]


@takes_device_map
def analyse(
    team: Team,
    data: Annotated[Path, typer.Option("--data", help="JSONL file of rows with answers.")],
    what: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Analyses to run, separated by commas: distances, gradients, meaning. "
            "Default: all.",
            autocompletion=lambda: files_of("studies.analyses"),
        ),
    ] = None,
    limit: Limit = None,
    answer_field: AnswerField = "answer",
    field: Fields = None,
    rounds: Rounds = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of rows that run together.")] = 8,
    seed: Annotated[
        int,
        typer.Option(help="Random seed for directions, resamples, and untrained links."),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="Folder for JSON, a table, charts and a page of HTML.",
        ),
    ] = None,
    *,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Analyse a team's messages by round: distance to the answer, gradients, and what they say."""
    if output is not None:
        check_outputs(output / "analysis.json")
    names = None if what is None else [name.strip() for name in what.split(",") if name.strip()]
    task = open_task(data, None, limit=limit, few_shot=0, answer_field=answer_field)
    fields = pairs("--field", field or [])
    system = open_team(
        team,
        device=device,
        seed=seed,
        check=lambda plan: task.fill(plan.graph.inputs, fields, keep=False),
        answers=False,
    )
    from latentmas.studies import analyse as run_analyses

    found = run_analyses(
        system,
        task.rows,
        what=names,
        rounds=rounds,
        answer_field=answer_field,
        batch_size=batch_size,
        seed=seed,
        output=output,
    )
    emit_json(found.to_dict()) if json else emit(str(found))
    if output is not None:
        note(f"wrote {output / 'analysis.html'}")

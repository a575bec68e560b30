"""The command that measures what a team costs: costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Device, Json, Team, check_outputs, pairs
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.task import open_task
from latentmas.cli.support.task_flags import Fields, Limit, TwinTokens
from latentmas.cli.support.team import open_team
from latentmas.plan import RunOptions

__all__ = ["costs"]


@takes_device_map
@takes_run_options("rounds", "num_return_sequences", "retry", "on_error", executor="auto")
def costs(
    team: Team,
    data: Annotated[
        Path, typer.Option("--data", help="JSONL file of questions; answers are not needed.")
    ],
    limit: Limit = None,
    field: Fields = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Numbers of rounds, separated by commas. Default: the graph's.",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of measured runs of each; medians are reported.")
    ] = 3,
    twin_tokens: TwinTokens = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="YAML file with prices of devices per hour. Default: a table with dates and "
            "sources, without a price for processors.",
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Machine for the estimates, as in `latentmas plan`. Default: the one that the "
            "device's name contains."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="File for the table: .md, .tex, .txt or .json."
        ),
    ] = None,
    *,
    options: RunOptions,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure a team against its text twin: time, tokens, memory, energy and price by rounds."""
    depths = numbers("--rounds", rounds)
    check_outputs(output)
    task = open_task(data, None, limit=limit, few_shot=0, answer_field="answer")
    fields = pairs("--field", field or [])
    system = open_team(
        team,
        device=device,
        seed=seed_of(options),
        check=lambda plan: task.fill(plan.graph.inputs, fields, keep=False, answers=False),
    )
    from latentmas.studies import measure_costs

    found = measure_costs(
        system,
        task.rows,
        rounds=depths,
        repeats=repeats,
        twin_tokens=twin_tokens,
        prices=prices,
        hardware=hardware,
        output=output,
        options=options,
    )
    emit_json(found.to_dict()) if json else emit(str(found))
    if output is not None:
        note(f"wrote {output}")


def numbers(flag: str, text: str | None) -> list[int] | None:
    """Whole numbers separated by commas.

    Raises:
        typer.BadParameter: it is something else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(f"{flag} takes numbers separated by commas, such as 1,2,3")
    return [int(part) for part in parts]

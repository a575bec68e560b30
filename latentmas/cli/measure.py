"""The command that times a team: bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import (
    Device,
    Json,
    Team,
)
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.team import open_team
from latentmas.plan import RunOptions

if TYPE_CHECKING:
    pass

__all__ = ["bench"]


@takes_device_map
@takes_run_options("executor", "batch_size", max_new_tokens=16)
def bench(
    team: Team,
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="Text for every input of the graph.")
    ] = "What is 3 + 4, and why?",
    executors: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Executors to time, separated by commas; the first is the baseline.",
        ),
    ] = "reference,cached,static",
    samples: Annotated[
        int, typer.Option(min=1, help="Number of copies of the question in a batch.")
    ] = 4,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of timed runs per executor; medians are reported.")
    ] = 3,
    *,
    options: RunOptions,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Time executors on a team: seconds, ratios, and whether all write the same tokens."""
    names = [name.strip() for name in executors.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("--executors takes one or more names, separated by commas")
    system = open_team(team, device=device, seed=seed_of(options))
    from latentmas.evaluation import time_executors

    rows = [dict.fromkeys(system.plan.graph.inputs, question)] * samples
    options = options.replace(batch_size=samples)
    with run_progress() as watch:
        found = time_executors(
            system, rows, names, repeats=repeats, on_event=watch, options=options
        )
    if json:
        emit_json({"samples": samples, "timings": [timing.to_dict() for timing in found]})
        return
    emit(f"{'executor':<14}{'seconds':>9}{'latent':>9}{'text':>9}{'faster':>9}  tokens")
    for t in found:
        emit(
            f"{t.executor:<14}{t.seconds:>9.3f}{t.latent_seconds:>9.3f}{t.text_seconds:>9.3f}"
            f"{t.ratio:>8.2f}x  {'same' if t.same_tokens else 'different'}"
        )

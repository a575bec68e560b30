"""The command that trains and evaluates a team at all combinations of settings."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Device, Json, pairs
from latentmas.cli.support.placing import places, takes_device_map
from latentmas.cli.support.run_options import takes_run_options
from latentmas.cli.support.task import open_task
from latentmas.cli.support.task_flags import (
    AnswerField,
    BenchmarkName,
    Controls,
    Data,
    FewShot,
    Fields,
    GraderName,
    GraderOptions,
    Limit,
    TwinTokens,
    control_names,
    open_judge,
)
from latentmas.cli.support.team import files_are_trusted, open_graph, open_plan
from latentmas.cli.support.training.data import answer_field_of, read_training
from latentmas.cli.support.training.flags import parse_value, split_sets
from latentmas.cli.support.training.group import Columns, LoopSets, Named, Steps, Target
from latentmas.plan import RunOptions

if TYPE_CHECKING:
    from latentmas.studies import PlannedCell

__all__ = ["sweep"]

Team = Annotated[
    Path, typer.Argument(metavar="TEAM", help="Graph file, preset, or the folder of a saved team.")
]
Over = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="NAME=V1,V2",
        help="Setting to vary and its values: link, inner, init, expansion, link.OPTION, "
        "latent_steps, max_new_tokens, rounds, backbone, backbone.NAME, train_rounds, or "
        "LOOP.FIELD such as outer.learning_rate. May be repeated; all combinations are run.",
    ),
]
TrainData = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Training rows: a JSONL file, or hub:OWNER/NAME. Without them, teams are evaluated "
        "untrained.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output-dir",
        "-o",
        file_okay=False,
        help="Folder of the study; the same command again continues it.",
    ),
]


@takes_device_map
@takes_run_options("seed", executor="auto")
def sweep(
    team: Team,
    over: Over,
    output_dir: Output,
    data: Data = None,
    benchmark: BenchmarkName = None,
    train_data: TrainData = None,
    run_rounds: Annotated[
        str,
        typer.Option(
            metavar="N1,N2",
            help="Numbers of rounds at which each trained cell is evaluated.",
        ),
    ] = "",
    seeds: Annotated[
        str,
        typer.Option(
            metavar="N or N1,N2",
            help="Number of seeds, or seeds separated by commas (5, for one seed).",
        ),
    ] = "1",
    limit: Limit = None,
    few_shot: FewShot = 0,
    grader: GraderName = None,
    grader_option: GraderOptions = None,
    answer_field: AnswerField = "answer",
    field: Fields = None,
    controls: Controls = "",
    twin_tokens: TwinTokens = None,
    columns: Columns = None,
    loop: Named = None,
    steps: Steps = None,
    target: Target = None,
    set_: LoopSets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue, and run failed cells again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the sweep and list its cells.")
    ] = False,
    *,
    options: RunOptions,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train and evaluate a team at all combinations of settings, and compare them."""
    varied = read_over(over)
    numbers = _numbers("--seeds", seeds)
    task = open_task(data, benchmark, limit=limit, few_shot=few_shot, answer_field=answer_field)
    plan = open_plan(team)
    task.fill(plan.graph.inputs, pairs("--field", field or []), keep=options.on_error == "keep")
    rows = None if train_data is None else read_training(train_data, columns)
    training = _training(rows, loop, steps, target, set_)
    own_field = None if benchmark else answer_field
    named = None if rows is None else answer_field_of(rows, None) or own_field
    if named not in (None, "answer"):
        training.setdefault("answer_field", named)
    from latentmas.studies import plan_sweep, sweep

    judge = open_judge(task, grader, grader_option)
    given: dict[str, Any] = {
        "folder": output_dir,
        "over": varied,
        "train_rows": rows,
        "run_rounds": _numbers("--run-rounds", run_rounds) if run_rounds else (),
        "seeds": numbers[0] if len(numbers) == 1 and "," not in seeds else numbers,
        "training": training,
        "grader": judge,
        "answer_field": task.answer_field,
        "controls": control_names(controls, False),
        "twin_tokens": twin_tokens,
        "options": options,
        "trust_remote_code": files_are_trusted(),
    }
    start = team if team.is_dir() or team.name == "latentmas.json" else open_graph(team)
    with judge:
        if dry_run:
            cells = plan_sweep(start, task.rows, **given)
            emit_json([dict(c.cell.settings) for c in cells]) if json else emit(_listing(cells))
            return
        where = places(device, [agent.name for agent in plan.graph.agents])
        place = {"device": where.pop("device", None), "load": where}
        with _resumable():
            found = sweep(start, task.rows, **given, **place, resume=resume)
    for path in found.write():
        note(f"wrote {path}")
    emit_json(found.table().to_dict()) if json else emit(str(found))
    for cell in found.failed:
        note(f"failed: {cell}")
    if found.failed:
        note("run the failed cells again with --resume")
        raise typer.Exit(1)


def read_over(given: list[str]) -> dict[str, list[Any]]:
    """Settings and their values: `link=soft_token,recursive`.

    Raises:
        typer.BadParameter: one has another form, or a name comes twice.
    """
    found: dict[str, list[Any]] = {}
    for name, text in pairs("--over", given).items():
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise typer.BadParameter(f"--over takes NAME=V1,V2, found {f'{name}={text}'!r}")
        found[name] = [parse_value(name, value) for value in parts]
    return found


def _numbers(flag: str, text: str) -> list[int]:
    """Whole numbers separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(
            f"{flag} takes whole numbers separated by commas, such as 1,2,3; found {text!r}"
        )
    return [int(part) for part in parts]


def _training(
    rows: list[dict[str, Any]] | None,
    loop: list[str] | None,
    steps: int | None,
    target: list[str] | None,
    sets: list[str] | None,
) -> dict[str, Any]:
    """Keywords of `lm.train`.

    Raises:
        typer.BadParameter: options of a training are given without rows to train on.
    """
    flags = {"--loop": loop, "--steps": steps, "--target": target, "--set": sets}
    if rows is None:
        for flag, value in flags.items():
            if value:
                raise typer.BadParameter(f"{flag} requires --train-data")
        return {}
    given = {
        "loops": loop or None,
        "max_steps": steps,
        "targets": pairs("--target", target or []) or None,
    }
    found = split_sets(sets or [])
    return {**{name: value for name, value in given.items() if value is not None}, **found}


def _listing(cells: list[PlannedCell]) -> str:
    """The cells of a sweep, one per line."""
    return "\n".join([f"{len(cells)} cells", *(f"  {one.cell.name}" for one in cells)])


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C prints the command that resumes."""
    from latentmas.studies import StudyInterrupted

    try:
        yield
    except StudyInterrupted as stop:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        command = f"latentmas {shlex.join(words)} --resume"
        raise StudyInterrupted(stop.finished, stop.total, stop.folder, command) from None

"""Commands that compare a team with baselines: baselines, baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import Device, Json, Team, files_of, pairs, unknown, values
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.task import open_task
from latentmas.cli.support.task_flags import (
    AnswerField,
    BenchmarkName,
    Data,
    FewShot,
    Fields,
    GraderName,
    GraderOptions,
    Limit,
    open_judge,
)
from latentmas.cli.support.team import open_plan, open_team
from latentmas.cli.support.training.data import read_training
from latentmas.plan import Plan, RunOptions

if TYPE_CHECKING:
    from latentmas.runtime import System
    from latentmas.studies import Baseline

__all__ = ["baseline", "baselines"]

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Baseline, by name; see `latentmas baselines`.",
        autocompletion=lambda: files_of("studies.baselines"),
    ),
]


def baselines(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Baseline to describe with its options. Default: list all baselines.",
            autocompletion=lambda: files_of("studies.baselines"),
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List baselines to compare a team with, or describe one with its options."""
    from latentmas.studies.baselines import baselines as registry

    if name is not None and name not in registry:
        raise unknown("baseline", name, registry.names(), "`latentmas baselines` lists them all")
    known = {one: registry.get(one) for one in registry.names()}
    if name is not None:
        found = _described(name, known[name])
        emit_json(found) if json else emit(_text(found))
        return
    if json:
        emit_json({"baselines": [_described(one, kind) for one, kind in known.items()]})
        return
    width = max(map(len, known))
    for one, kind in known.items():
        trained = "trains" if kind.trains else ""
        emit(f"{one:<{width}}  {trained:<6}  {kind.summary}".rstrip())


@takes_device_map
@takes_run_options(executor="auto")
def baseline(
    name: Name,
    team: Team,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", file_okay=False, help="Folder of the study; finished parts are kept."
        ),
    ],
    data: Data = None,
    benchmark: BenchmarkName = None,
    limit: Limit = None,
    few_shot: FewShot = 0,
    train_data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Training rows for a baseline that trains: a JSONL file, or hub:OWNER/NAME.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Option of the baseline as name=value; may be repeated."),
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Number of optimizer steps.")] = 100,
    train_batch_size: Annotated[
        int, typer.Option(min=1, help="Number of training rows per step.")
    ] = 16,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Peak learning rate. Default: the baseline's own.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of trainings, with one seed each, from --seed on.")
    ] = 1,
    no_team: Annotated[
        bool, typer.Option("--no-team", help="Evaluate the baseline without the team.")
    ] = False,
    grader: GraderName = None,
    grader_option: GraderOptions = None,
    answer_field: AnswerField = "answer",
    field: Fields = None,
    *,
    options: RunOptions,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Compare a team with a baseline on the same rows, and say what each has cost."""
    own = values("--option", option or [])
    task = open_task(data, benchmark, limit=limit, few_shot=few_shot, answer_field=answer_field)
    train_rows = None if train_data is None else read_training(train_data, None)
    seed = seed_of(options)
    given: System | Plan = _only_on_hub(team, device, seed) or open_plan(team)
    plan = given if isinstance(given, Plan) else given.plan
    fields = pairs("--field", field or [])
    if fields or benchmark is not None:
        task.fill(plan.graph.inputs, fields, keep=options.on_error == "keep")
    from latentmas.evaluation import fill_inputs
    from latentmas.studies import run_baseline

    if fields and train_rows is not None:
        train_rows = fill_inputs(train_rows, plan.graph.inputs, fields)
    judge = open_judge(task, grader, grader_option)
    with judge, run_progress() as watch:
        found = run_baseline(
            name,
            given,
            task.rows,
            folder=output,
            train_rows=train_rows,
            max_steps=max_steps,
            train_batch_size=train_batch_size,
            learning_rate=learning_rate,
            seed=seed,
            seeds=seeds,
            with_team=not no_team,
            grader=judge,
            answer_field=task.answer_field,
            run_options=options,
            load=lambda _: open_team(team, device=device, seed=seed),
            progress=True,
            on_event=watch,
            **own,
        )
    emit_json(found.to_dict()) if json else emit(str(found))
    for suffix in (".md", ".tex", ".json"):
        note(f"wrote {found.write(output / f'{name}{suffix}')}")


def _only_on_hub(team: Path, device: str, seed: int) -> System | None:
    """The team of a repository on the Hub, whose plan comes with it; None for local ones."""
    named = len(team.parts) == 2 and not team.is_absolute() and not team.exists()
    if not named or team.suffix.lower() in (".yaml", ".yml", ".json"):
        return None
    return open_team(team, device=device, seed=seed)


def _described(name: str, kind: type[Baseline]) -> dict[str, Any]:
    options = {
        option: {
            "default": field.default,
            "help": " ".join((field.description or "").split()),
        }
        for option, field in kind.Options.model_fields.items()
    }
    facts = {"name": name, "summary": kind.summary, "trains": kind.trains}
    return facts | {"packages": dict(kind.packages), "options": options}


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['name']}: {found['summary']}"]
    if found["trains"]:
        lines.append("It is made from training rows (--train-data), once for each seed.")
    for module, extra in found["packages"].items():
        lines.append(f"It needs the package {module}: pip install 'latentmas[{extra}]'")
    lines.append("options (--option NAME=VALUE):")
    for option, told in found["options"].items():
        lines.append(f"  {option} (default: {told['default']}): {told['help']}")
    return "\n".join(lines)

"""Commands that score a team: eval, merge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.engines import (
    EngineName,
    EngineOptions,
    GpusPerWorker,
    Workers,
    make_engine,
    shows_all,
)
from latentmas.cli.support.options import (
    Device,
    Json,
    Manifest,
    Team,
    check_outputs,
    files_of,
    pairs,
    values,
)
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.task import open_task
from latentmas.cli.support.team import open_team
from latentmas.plan import RunOptions, answer_limits

if TYPE_CHECKING:
    from latentmas.evaluation import Evaluation, Shard

__all__ = ["Controls", "control_names", "eval_", "merge"]

Controls = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Controls to run on the same rows, separated by commas: alone, twin, zeroed, "
        "shuffled, untrained; or all.",
    ),
]
Tables = Annotated[
    list[Path] | None,
    typer.Option(
        "--table",
        dir_okay=False,
        help="File for the table: .md, .tex, .json or .txt; or .html for a page with every row. "
        "May be repeated.",
    ),
]


@takes_device_map
@takes_run_options(executor="auto")
def eval_(
    team: Team,
    data: Annotated[
        Path | None, typer.Option("--data", help="JSONL file of rows with answers.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Benchmark to run, by name; with --data, from that file instead of the Hub.",
            autocompletion=lambda: files_of("evaluation.benchmarks"),
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of rows to take, from the first.")
    ] = None,
    few_shot: Annotated[
        int, typer.Option(min=0, help="Number of solved examples before each question.")
    ] = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Part of the rows: 0/4 is the first of four.")
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            help="Grader of the answers, by name. Default: the benchmark's, else exact.",
            autocompletion=lambda: files_of("evaluation.graders"),
        ),
    ] = None,
    grader_option: Annotated[
        list[str] | None,
        typer.Option("--grader-option", help="Option of the grader as name=value; repeatable."),
    ] = None,
    answer_field: Annotated[str, typer.Option(help="Field that holds the answer.")] = "answer",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            help="Input of the graph and the field to fill it, as input=field; may be repeated.",
        ),
    ] = None,
    controls: Controls = "",
    twin: Annotated[bool, typer.Option("--twin", help="Same as --controls twin.")] = False,
    twin_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of tokens that the twin's agents write per edge."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="JSONL file that takes each row as it finishes."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished rows of --output; run the others.")
    ] = False,
    table: Tables = None,
    engine: EngineName = None,
    workers: Workers = None,
    num_gpus_per_worker: GpusPerWorker = None,
    engine_option: EngineOptions = None,
    *,
    options: RunOptions,
    device: Device = "cpu",
    manifest: Manifest = None,
    json: Json = False,
) -> None:
    """Score a team's answers with a 95 % interval, beside its controls and the cost of each."""
    names = control_names(controls, twin)
    if twin_tokens is not None and "twin" not in names:
        raise typer.BadParameter("--twin-tokens requires --twin")
    _check_files(data, benchmark, output, resume)
    check_outputs(output, manifest, *(table or []))
    runs = make_engine(
        engine,
        device=device,
        sharded=shard is not None,
        workers=workers,
        gpus=num_gpus_per_worker,
        options=values("--engine-option", engine_option or []),
    )
    task = open_task(data, benchmark, limit=limit, few_shot=few_shot, answer_field=answer_field)
    fields = pairs("--field", field or [])
    keeps = options.on_error == "keep"
    system = open_team(
        team,
        device=device if isinstance(runs, str) else runs.place(device),
        seed=seed_of(options),
        check=lambda plan: task.fill(plan.graph.inputs, fields, keep=keeps),
    )
    from latentmas.evaluation import evaluate, open_grader, write_table

    judge = open_grader(
        grader or task.grader,
        **({} if grader else task.grader_options),
        **values("--grader-option", grader_option or []),
    )
    if twin_tokens is not None:
        own = answer_limits(system.plan, options.max_new_tokens)
        options = options.replace(max_new_tokens=own)
    with judge, run_progress(quiet=not shows_all(runs)) as watch, _kept(output):
        found = evaluate(
            system,
            task.rows,
            grader=judge,
            answer_field=task.answer_field,
            controls=names,
            twin_tokens=twin_tokens,
            output=output,
            resume=resume,
            shard=_shard(shard),
            engine=runs,
            manifest=manifest,
            data=data,
            on_event=watch,
            options=options,
        )
    if shard is None and found.rows < len(task.rows):
        note(f"{found.rows} of {len(task.rows)} rows are finished; the last process joins all")
        return
    for path in table or []:
        note(f"wrote {write_table(found, path)}")
    emit_json(found.to_dict()) if json else emit(str(found))
    well = _output_told(found, output)
    if not well or found.manifest_error is not None or len(found.errors) == found.rows:
        raise typer.Exit(1)


def merge(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL file to write.")],
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARD...", help="Results files of all shards.")
    ],
    table: Tables = None,
    json: Json = False,
) -> None:
    """Join the results files of all shards of an evaluation, and score them."""
    check_outputs(output, *(table or []))
    from latentmas.evaluation import merge_results, write_table

    found = merge_results(shards, output)
    for path in table or []:
        note(f"wrote {write_table(found, path)}")
    emit_json(found.to_dict()) if json else emit(str(found))
    note(f"wrote {output}")


def _check_files(
    data: Path | None, benchmark: str | None, output: Path | None, resume: bool
) -> None:
    """Whether there are rows, and a file to continue."""
    if resume and output is None:
        raise typer.BadParameter("--resume requires --output, the file to continue")
    if data is None and benchmark is None:
        raise typer.BadParameter("name rows: --data FILE, or --benchmark NAME")


def control_names(names: str, twin: bool) -> list[str]:
    """Names of controls, each once."""
    from latentmas.evaluation import CONTROLS

    given = [name.strip() for name in names.split(",") if name.strip()]
    given = list(CONTROLS) if given == ["all"] else given
    return list(dict.fromkeys([*given, *(["twin"] if twin else [])]))


def _shard(text: str | None) -> Shard | None:
    """A shard as the user writes it: 0/4."""
    if text is None:
        return None
    from latentmas.evaluation import Shard

    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise typer.BadParameter(f"--shard is I/N, such as 0/4, not {text!r}")
    return Shard(int(index), int(count))


@contextmanager
def _kept(output: Path | None) -> Iterator[None]:
    """Around the run: says how many rows are on disk if it fails."""
    try:
        yield
    except BaseException:
        if output is not None and output.is_file():
            with output.open("rb") as file:
                count = sum(1 for _ in file)
            note(f"{count} rows are in {output}; continue with --resume")
        raise


def _output_told(found: Evaluation, output: Path | None) -> bool:
    """Say what became of the results file; whether it is whole, if one was wanted."""
    if output is None:
        return True
    if found.output_error is None:
        note(f"wrote {output}")
        return True
    note(str(found.output_error))
    return False

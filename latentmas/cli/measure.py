"""Commands that measure a team: eval, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentmas.cli.support.answered import RowFile, in_full
from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import (
    Device,
    Json,
    Manifest,
    Team,
    check_outputs,
    files_of,
)
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.rows import Row
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.team import open_team
from latentmas.plan import Decode, RunOptions
from latentmas.spec import read_jsonl

if TYPE_CHECKING:
    from latentmas.evaluation import Evaluation, Grader
    from latentmas.runtime import SampleEnd

__all__ = ["bench", "eval_"]

Data = Annotated[Path, typer.Option("--data", help="JSONL file of rows with answers.")]


@takes_run_options(executor="auto")
def eval_(
    team: Team,
    data: Data,
    grader: Annotated[
        str,
        typer.Option(
            help="Grader of the answers, by name.",
            autocompletion=lambda: files_of("evaluation.graders"),
        ),
    ] = "exact",
    answer_field: Annotated[str, typer.Option(help="Field that holds the answer.")] = "answer",
    twin: Annotated[
        bool, typer.Option("--twin", help="Also run the text twin on the same models.")
    ] = False,
    twin_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of tokens that the twin's agents write per edge."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="JSONL file for the judged answers."),
    ] = None,
    *,
    options: RunOptions,
    device: Device = "cpu",
    manifest: Manifest = None,
    json: Json = False,
) -> None:
    """Score a team's answers with a 95 % interval, beside its text twin and the cost of both."""
    if twin_tokens is not None and not twin:
        raise typer.BadParameter("--twin-tokens requires --twin")
    check_outputs(output, manifest)
    table = read_jsonl(data)
    system = open_team(
        team,
        device=device,
        seed=seed_of(options),
        check=lambda plan: (
            None
            if options.on_error == "keep"
            else table.require([*plan.graph.inputs, answer_field])
        ),
    )
    from latentmas.evaluation import evaluate, open_grader

    judge = open_grader(grader)
    other = system.text_twin(max_new_tokens=twin_tokens) if twin else None
    if options.max_new_tokens is not None and twin_tokens is not None:  # edges keep the twin's
        writers = sorted({s.agent for s in system.plan.steps if isinstance(s, Decode)})
        options = options.replace(max_new_tokens=dict.fromkeys(writers, options.max_new_tokens))

    def row(end: SampleEnd) -> Row:
        return _judged(table.rows[end.sample], end, judge, answer_field)

    file = RowFile(output, len(table.rows), row)
    with run_progress() as watch, file.kept():
        found = evaluate(
            system,
            table.rows,
            grader=judge,
            answer_field=answer_field,
            twin=other,
            manifest=manifest,
            data=data,
            on_event=[watch, file.watch],
            options=options,
        )
    emit_json(found.to_dict()) if json else emit(str(found))
    well = file.finish(_by_row(file.rows, found))
    if not well or found.manifest_error is not None or len(found.errors) == found.rows:
        raise typer.Exit(1)


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


def _judged(row: Row, end: SampleEnd, judge: Grader, answer_field: str) -> Row:
    """A finished row, and whether it is right; all of several answers are judged."""
    told = in_full(row, end, metric=judge.name)
    if end.error is not None or answer_field not in row:
        return told | {"right": False}
    try:
        right = [judge.grade(text, row[answer_field], row).right for text in end.texts]
    except Exception as error:  # a grader may be a plugin's; the evaluation tells of it
        return told | {"right": False, "error": f"{type(error).__name__}: {error}"}
    return told | {"right": right[0]} | ({"rights": right} if len(right) > 1 else {})


def _by_row(rows: dict[int, Row], found: Evaluation) -> list[Row]:
    """The finished rows in order, each beside what the twin made of it."""
    told = [
        rows[i] | ({"error": str(found.errors[i])} if i in found.errors else {})
        for i in range(found.rows)
    ]
    if found.twin is None:
        return told
    twin = found.twin
    for i, row in enumerate(told):
        text = twin.texts[i] if twin.sequences[i] else None
        row |= {"twin_prediction": text, "twin_right": twin.right[i]}
        row |= {"twin_error": str(twin.errors[i])} if i in twin.errors else {}
    return told

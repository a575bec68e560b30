"""`evaluate`: run a team and its controls on rows, keep what is finished, and score it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.controls import CONTROLS
from latentmas.evaluation.engines import Engine, open_engine
from latentmas.evaluation.graders import Grader, GraderFunction, open_grader
from latentmas.evaluation.prepare import (
    TEAM,
    Row,
    Shard,
    make_job,
    make_systems,
    open_results,
    read_rows,
    take_share,
)
from latentmas.evaluation.runner import Job, Recipe, Runner, Work, check_shard
from latentmas.evaluation.scoring import Evaluation, compare, score_records
from latentmas.evaluation.settings import settings_of
from latentmas.plan import RunOptions
from latentmas.runtime import RunResult, System, check_system, merge_options

__all__ = ["TEAM", "Shard", "evaluate", "gather"]


def evaluate(
    system: System,
    rows: Sequence[Row],
    *,
    grader: str | Grader | GraderFunction = "exact",
    answer_field: str = "answer",
    controls: Sequence[str] = (),
    compare_with: Mapping[str, System] | None = None,
    twin_tokens: int | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    shard: Shard | None = None,
    engine: str | Engine = "local",
    manifest: str | Path | None = None,
    data: str | Path | None = None,
    options: RunOptions | None = None,
    **given: Any,
) -> Evaluation:
    """Run a team on rows and score its answers.

    Args:
        system: the team.
        rows: samples with the inputs of the graph and the correct answer.
        grader: `"exact"`, `"math"`, `"choice"` or another registered name, a `Grader`, or a
            function of the generated text and the correct answer.
        answer_field: name of the field with the correct answer.
        controls: names of controls to run on the same rows: `"alone"`, `"twin"`, `"zeroed"`,
            `"shuffled"`, `"untrained"`.
        compare_with: other systems to run on the same rows, by name.
        twin_tokens: maximum number of tokens that the agents of the text twin write per edge.
        output: JSONL file that takes each row as soon as it is finished, whatever happens after.
        resume: whether to keep the finished rows of `output` and run the missing ones. Otherwise
            `output` must not hold rows.
        shard: part of the rows to run; `latentmas merge` joins the files of all shards.
        engine: `"local"`, `"ray"`, `"torchrun"` or another registered name, or an `Engine` such as
            `RayEngine(workers=4)`: where the rows run. Engines keep the same rows under the same
            keys, so an evaluation that one has begun can be continued by another.
        manifest: path for the manifest of the team's run, with its score, which `latentmas.rerun`
            can repeat. It does not include other systems.
        data: file that the rows come from, for the manifest to refer to; without one, the manifest
            contains the rows.
        options: options of `system.run` for all systems. With `do_sample`, each row has a seed of
            its own, made from `seed` and its sample, so that it does not matter which rows run
            together.
        **given: single options of `system.run`, which override `options`, and hooks such as
            `on_event`. With `num_return_sequences`, all answers are scored. With
            `on_error="keep"`, rows that fail count as wrong and are listed in `errors`. With
            `record=("report",)`, `Evaluation.report` can write a page of the run.

    Returns:
        Score with interval and cost, and those of controls with their paired differences. With the
        engine `torchrun`, the process that ends last has all rows, and the others have their own.

    Raises:
        DataError: the rows are empty; some lack an answer or an input or cannot be graded, and the
            error lists them all; or `output` cannot be used.
        UnknownNameError: the grader, a control or the engine is unknown.
        LatentMASError: the engine cannot run, or options do not fit together.
    """
    for name, team in {"system": system, **(compare_with or {})}.items():
        check_system(name, team)
    hooks = {name: given.pop(name) for name in ("on_event",) if name in given}
    if extra := {"on_text", "edit_message"}.intersection(given):
        raise LatentMASError(
            f"evaluate takes no {sorted(extra)[0]}; to edit messages, use system.tap, or a control"
        )
    asked, objects = merge_options("evaluate", options, given)
    judge, runs = open_grader(grader), open_engine(engine)
    whole = manifest is not None or "report" in asked.record
    if whole and (shard is not None or not runs.runs_whole):
        what = "shard" if shard is not None else f"engine {runs.name!r}"
        raise LatentMASError(f"a manifest or a report takes one run of all rows; leave out {what}")
    check_shard(system.mesh, shard is not None, runs.name)
    path = None if output is None else Path(output)
    systems = make_systems(system, controls, compare_with or {}, twin_tokens)
    group_size = asked.batch_size if any(one.shuffles for one in systems.values()) else None
    table = read_rows(rows, answer_field, judge, keep=asked.on_error == "keep")
    table = take_share(table, judge, shard=shard, engine=runs, group_size=group_size)
    with ExitStack() as stack:
        if not isinstance(grader, Grader):
            stack.callback(judge.close)
        settings = settings_of(systems, asked, judge)
        results = open_results(
            stack,
            path,
            resume=resume,
            engine=runs,
            rows=table,
            settings=settings,
            mesh=system.mesh,
        )
        runner = Runner(
            rows=table,
            grader=judge,
            results=results,
            options=asked,
            objects=objects,
            watchers=_watchers(hooks.get("on_event", ())),
        )
        jobs = [
            make_job(
                name,
                control,
                _recipe(name, system, control.system, controls, twin_tokens),
                table,
                asked,
                whole=whole,
            )
            for name, control in systems.items()
        ]
        recorder = None if manifest is None else partial(system.recorder, manifest, data=data)
        runs.run(_works(runner, jobs, recorder))
        found = _gathered(runner, jobs)
    joined = None if found.output_error else runs.join(path)
    return found if joined is None else joined


def _recipe(
    name: str, team: System, own: System, controls: Sequence[str], twin_tokens: int | None
) -> Recipe:
    """How a system is made: a control of the team, or as it is."""
    if name in controls and name in CONTROLS:
        return Recipe(team, name, twin_tokens)
    return Recipe(own)


def _works(runner: Runner, jobs: Sequence[Job], recorder: Any) -> Iterator[Work]:
    """What the results lack of each job, made when it is asked for."""
    for job in jobs:
        work = runner.work(job)
        if work is None:
            continue
        if recorder is not None and job.name == TEAM:
            work.manifest = recorder(score=partial(_scores_of, runner, job))
        yield work


def _gathered(runner: Runner, jobs: Sequence[Job]) -> Evaluation:
    """The evaluations of all jobs, which can be read again from the ordered file."""
    results, numbers = runner.results, runner.rows.numbers
    evaluations = {job.name: _evaluated(runner, job) for job in jobs}
    results.finish({job.name: place for place, job in enumerate(jobs)})
    return gather(
        {
            name: replace(
                one, output_error=results.error, read=partial(results.again, name, numbers)
            )
            for name, one in evaluations.items()
        }
    )


def _evaluated(runner: Runner, job: Job) -> Evaluation:
    result = runner.works[job.name].result if job.name in runner.works else None
    error = None if result is None else result.manifest_error
    return replace(_scored(runner, job), result=result, manifest_error=error)


def _scored(runner: Runner, job: Job) -> Evaluation:
    numbers = runner.rows.numbers
    records = (runner.results.get(job.name, number) for number in numbers)
    clusters = [runner.rows.names[number].split()[0] for number in numbers]
    return score_records(records, clusters=clusters)


def _scores_of(runner: Runner, job: Job, result: RunResult) -> dict[str, Any]:
    """Scores of a run, for its manifest."""
    runner.settle()
    told = _scored(runner, job).to_dict()
    names = ("grader", "rows", "score", "interval", "sampled")
    return {name: told[name] for name in names if name in told}


def gather(evaluations: dict[str, Evaluation]) -> Evaluation:
    """The team's evaluation with those of the other systems and the paired differences."""
    team = evaluations.pop(TEAM)
    return replace(
        team,
        others=evaluations,
        differences={name: compare(team, other) for name, other in evaluations.items()},
    )


def _watchers(on_event: Any) -> tuple[Any, ...]:
    return (on_event,) if callable(on_event) else tuple(on_event)

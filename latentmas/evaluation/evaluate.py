"""`evaluate`: run a team and its controls on rows, keep what is finished, and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.controls import Control, make_control
from latentmas.evaluation.graders import Grader, GraderFunction, open_grader
from latentmas.evaluation.runner import (
    Job,
    Results,
    Rows,
    Runner,
    check_shard,
    even_batches,
    key_of_row,
    name_samples,
    open_results,
)
from latentmas.evaluation.scoring import Evaluation, compare, score_records
from latentmas.evaluation.settings import check_settings, settings_of, write_settings
from latentmas.plan import RunOptions
from latentmas.redact import get_logger
from latentmas.runtime import RunResult, System, bad_samples, check_system, merge_options
from latentmas.spec import field_problem

__all__ = ["TEAM", "Shard", "evaluate", "gather"]

Row = Mapping[str, Any]
TEAM = "team"
log = get_logger("latentmas.evaluation")


@dataclass(frozen=True)
class Shard:
    """A part of the rows: every `count`-th one, beginning with `index`."""

    index: int
    """Number of the shard, from 0."""
    count: int
    """Number of shards."""

    def __post_init__(self) -> None:
        if not (self.count >= 1 and 0 <= self.index < self.count):
            raise LatentMASError(
                f"shard {self.index}/{self.count} does not exist; the first of {self.count} is "
                f"0/{self.count} and the last {self.count - 1}/{self.count}"
            )


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
        Score with interval and cost, and those of controls with their paired differences.

    Raises:
        DataError: the rows are empty; some lack an answer or an input or cannot be graded, and the
            error lists them all; or `output` cannot be used.
        UnknownNameError: the grader or a control is unknown.
    """
    for name, team in {"system": system, **(compare_with or {})}.items():
        check_system(name, team)
    hooks = {name: given.pop(name) for name in ("on_event",) if name in given}
    if extra := {"on_text", "edit_message"}.intersection(given):
        raise LatentMASError(
            f"evaluate takes no {sorted(extra)[0]}; to edit messages, use system.tap, or a control"
        )
    asked, objects = merge_options("evaluate", options, given)
    judge = open_grader(grader)
    whole = manifest is not None or "report" in asked.record
    if whole and shard is not None:
        raise LatentMASError("a manifest or a report takes one run of all rows; leave out shard")
    check_shard(system.mesh, shard is not None)
    systems = _systems(system, controls, compare_with or {}, twin_tokens)
    table = _read(rows, answer_field, judge, shard, keep=asked.on_error == "keep")
    with ExitStack() as stack:
        if not isinstance(grader, Grader):
            stack.callback(judge.close)
        results = _open(stack, output, resume, systems, asked, judge)
        runner = Runner(
            rows=table,
            grader=judge,
            results=results,
            options=asked,
            objects=objects,
            watchers=_watchers(hooks.get("on_event", ())),
        )
        evaluations = {}
        for name, control in systems.items():
            job = _job(name, control, table, asked, whole=whole)
            recorder = None
            if manifest is not None and name == TEAM:
                recorder = system.recorder(
                    manifest, data=data, score=partial(_scores_of, runner, job)
                )
            evaluations[name] = _evaluated(runner, job, recorder)
        results.finish({name: place for place, name in enumerate(systems)})
        if (error := results.error) is not None:
            evaluations = {n: replace(one, output_error=error) for n, one in evaluations.items()}
        return gather(
            {
                name: replace(one, read=partial(results.again, name, table.numbers))
                for name, one in evaluations.items()
            }
        )


def _systems(
    system: System,
    controls: Sequence[str],
    others: Mapping[str, System],
    twin_tokens: int | None,
) -> dict[str, Control]:
    """All systems by name, the team first."""
    if isinstance(controls, str):
        raise LatentMASError(f"controls is a sequence of names, such as [{controls!r}]")
    found = {TEAM: Control(system)}
    for name in controls:
        found[name] = make_control(name, system, twin_tokens=twin_tokens)
    for name, other in others.items():
        if name in found:
            raise LatentMASError(f"compare_with has a system named {name!r}; choose another name")
        found[name] = Control(other)
    return found


def _read(
    rows: Sequence[Row], answer_field: str, judge: Grader, shard: Shard | None, *, keep: bool
) -> Rows:
    """The rows with their correct answers; those that cannot be graded have errors."""
    if not rows:
        raise DataError("there are no rows to evaluate")
    errors, gold = dict[int, LatentMASError](), list[Any]()
    for number, row in enumerate(rows):
        problem = field_problem(f"sample {number}", row, answer_field)
        for name in judge.needs:
            problem = problem or field_problem(f"sample {number}", row, name)
        gold.append(None if problem is not None else row[answer_field])
        if problem is not None:
            errors[number] = DataError(problem)
    if errors and not keep:
        raise bad_samples(errors, len(rows))
    numbers = range(len(rows)) if shard is None else range(shard.index, len(rows), shard.count)
    if not numbers:
        raise DataError(f"shard {shard} holds none of {len(rows)} rows")
    _warn_of_gold(rows, gold, [number for number in numbers if number not in errors], judge)
    samples = [row if isinstance(row, Mapping) else {} for row in rows]
    return Rows(samples, gold, name_samples(samples), errors, numbers)


def _warn_of_gold(
    rows: Sequence[Row], gold: Sequence[Any], numbers: Sequence[int], judge: Grader
) -> None:
    """Warn of correct answers that the grader cannot read."""
    found = {n: judge.gold_problem(gold[n], rows[n]) for n in numbers}
    unread = {number: problem for number, problem in found.items() if problem is not None}
    if unread:
        first = min(unread)
        log.warning(
            "grader %r cannot read the correct answers of %d of %d rows; answers to them count as "
            "wrong (row %d: %s)",
            *(judge.name, len(unread), len(numbers), first, unread[first]),
        )


def _open(
    stack: ExitStack,
    output: str | Path | None,
    resume: bool,
    systems: Mapping[str, Control],
    options: RunOptions,
    judge: Grader,
) -> Results:
    """The results file, with the rows of an earlier evaluation of the same settings."""
    mesh = systems[TEAM].system.mesh
    results = stack.enter_context(open_results(output, mesh))
    if mesh is not None and not mesh.writes:
        return results
    if output is None:
        if resume:
            raise LatentMASError("resume needs output, the file to continue")
        return results
    settings = settings_of(systems, options, judge)
    if results.on_disk and not resume:
        raise DataError(
            f"{str(output)!r} holds {results.on_disk} rows of an earlier evaluation; continue it "
            "with resume, name another file, or delete it"
        )
    if results.on_disk:
        check_settings(output, settings)
    write_settings(output, settings)
    return results


def _job(name: str, control: Control, table: Rows, options: RunOptions, *, whole: bool) -> Job:
    settings = settings_of({name: control}, options, None)
    digest = settings["digest"]
    keys = [key_of_row(digest, one) for one in table.names]
    if control.shuffles:  # the answer depends on the other rows of the batch too
        for batch in even_batches(list(table.numbers), options.batch_size):
            for number, before in zip(batch, [batch[-1], *batch], strict=False):
                keys[number] = key_of_row(digest, table.names[number], table.names[before])
    return Job(
        name=name,
        system=control.system,
        keys=keys,
        edit=control.edit,
        inputs=control.inputs,
        group=control.shuffles,
        whole=whole and not control.shuffles,
    )


def _evaluated(runner: Runner, job: Job, recorder: Any) -> Evaluation:
    result = runner.run(job, manifest=recorder)
    found = _scored(runner, job)
    if found.errors and runner.options.on_error == "raise":
        raise bad_samples(dict(found.errors), len(runner.rows.samples))
    error = None if result is None else result.manifest_error
    return replace(found, result=result, manifest_error=error)


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

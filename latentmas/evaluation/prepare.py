"""What an evaluation needs before it runs: systems, rows, the results file, and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.controls import Control, make_control
from latentmas.evaluation.engines import Engine
from latentmas.evaluation.graders import Grader
from latentmas.evaluation.runner import (
    Job,
    Recipe,
    Results,
    Rows,
    even_batches,
    key_of_row,
    name_samples,
    read_records,
    shared_results,
)
from latentmas.evaluation.settings import check_settings, settings_of, write_settings
from latentmas.plan import RunOptions
from latentmas.redact import get_logger
from latentmas.runtime import Mesh, System, bad_samples
from latentmas.spec import field_problem

__all__ = [
    "TEAM",
    "Row",
    "Shard",
    "make_job",
    "make_systems",
    "open_results",
    "read_rows",
    "take_share",
]

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


def make_systems(
    system: System,
    controls: Sequence[str],
    others: Mapping[str, System],
    twin_tokens: int | None,
) -> dict[str, Control]:
    """All systems by name, the team first.

    Args:
        system: the team.
        controls: names of controls.
        others: further systems by name.
        twin_tokens: maximum number of tokens that the text twin's agents write per edge.

    Raises:
        UnknownNameError: a control is unknown.
        LatentMASError: a control does not fit the team, or a name is used twice.
    """
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


def read_rows(rows: Sequence[Row], answer_field: str, judge: Grader, *, keep: bool) -> Rows:
    """The rows with their correct answers; those that cannot be graded have errors.

    Args:
        rows: the rows.
        answer_field: field of the correct answer.
        judge: grader.
        keep: whether rows that cannot be graded are kept, with their errors.

    Raises:
        DataError: there are no rows, or some cannot be graded.
    """
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
    samples = [row if isinstance(row, Mapping) else {} for row in rows]
    return Rows(samples, gold, name_samples(samples), errors, range(len(rows)))


def take_share(
    table: Rows,
    judge: Grader,
    *,
    shard: Shard | None,
    engine: Engine,
    group_size: int | None,
) -> Rows:
    """The rows that this process answers for: those of a shard, or of an engine's process.

    Args:
        table: all rows.
        judge: grader, which warns of correct answers that it cannot read.
        shard: shard that was asked for.
        engine: engine that runs the rows.
        group_size: about the size of batches that must stay together; None if there are none.

    Raises:
        DataError: the share is empty, or rows cannot be divided.
    """
    numbers: Sequence[int] = table.numbers
    if shard is not None:
        numbers = numbers[shard.index :: shard.count]
        if not numbers:
            raise DataError(f"shard {shard} holds none of {len(table.numbers)} rows")
    groups = even_batches(list(numbers), group_size) if group_size is not None else []
    own = engine.share(len(table.numbers), groups)
    if own is not None:
        held = set(own)
        numbers, groups = own, [group for group in groups if held.issuperset(group)]
    graded = [number for number in numbers if number not in table.errors]
    _warn_of_gold(table, graded, judge)
    return replace(table, numbers=numbers, groups=groups)


def _warn_of_gold(table: Rows, numbers: Sequence[int], judge: Grader) -> None:
    """Warn of correct answers that the grader cannot read."""
    found = {n: judge.gold_problem(table.gold[n], table.samples[n]) for n in numbers}
    unread = {number: problem for number, problem in found.items() if problem is not None}
    if unread:
        first = min(unread)
        log.warning(
            "grader %r cannot read the correct answers of %d of %d rows; answers to them count as "
            "wrong (row %d: %s)",
            *(judge.name, len(unread), len(numbers), first, unread[first]),
        )


def open_results(
    stack: ExitStack,
    output: Path | None,
    *,
    resume: bool,
    engine: Engine,
    rows: Rows,
    settings: Mapping[str, Any],
    mesh: Mesh | None,
) -> Results:
    """The results file, with the rows of an earlier evaluation of the same settings.

    Args:
        stack: closes the file.
        output: file that the user named; None keeps rows in memory.
        resume: whether finished rows are kept.
        engine: engine that runs the rows.
        rows: rows that this process answers for.
        settings: what the answers depend on.
        mesh: processes that hold the team together; one of them writes.

    Raises:
        DataError: the file cannot be used, or holds rows of another evaluation.
    """
    own, others = engine.part(output, resume=resume)
    results = stack.enter_context(shared_results(own, mesh))
    if mesh is not None and not mesh.writes:
        return results
    if output is None:
        if resume:
            raise LatentMASError("resume needs output, the file to continue")
        return results
    if results.on_disk and own == output and not resume:
        raise DataError(
            f"{str(output)!r} holds {results.on_disk} rows of an earlier evaluation; continue it "
            "with resume, name another file, or delete it"
        )
    if results.on_disk or others:
        check_settings(output, settings)
    wanted = set(rows.numbers)
    for record in (one for path in others for one in read_records(path)):
        held = results.key(record.system, record.row)
        if record.row in wanted and record.error is None and held != record.key:
            results.add(record)
    write_settings(output, settings)
    return results


def make_job(
    name: str,
    control: Control,
    recipe: Recipe,
    table: Rows,
    options: RunOptions,
    *,
    whole: bool,
) -> Job:
    """A system with the key of each row.

    Args:
        name: name of the system.
        control: the system.
        recipe: how it is made.
        table: rows to run.
        options: options of the run.
        whole: whether all rows go into one run.
    """
    settings = settings_of({name: control}, options, None)
    digest = settings["digest"]
    keys = [key_of_row(digest, one) for one in table.names]
    if control.shuffles:  # the answer depends on the other rows of the batch too
        for batch in table.groups:
            for number, before in zip(batch, [batch[-1], *batch], strict=False):
                keys[number] = key_of_row(digest, table.names[number], table.names[before])
    return Job(
        name=name,
        system=control.system,
        keys=keys,
        settings=settings["systems"][name],
        recipe=recipe,
        edit=control.edit,
        inputs=control.inputs,
        group=control.shuffles,
        whole=whole and not control.shuffles,
    )

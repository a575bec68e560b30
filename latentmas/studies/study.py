"""One study: what its cells depend on, how they are run, and what is said meanwhile."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.evaluation import CONTROLS, open_grader
from latentmas.io import digest_rows
from latentmas.plan import Plan, RunOptions
from latentmas.runtime import System, bad_samples, merge_options
from latentmas.spec import field_problem
from latentmas.studies.cells import CellResult, in_words, run_cell
from latentmas.studies.grid import Grid, PlannedCell
from latentmas.studies.jobs import FailedCell, Job, JobEnd, run_jobs
from latentmas.studies.origins import Origin
from latentmas.training import train

__all__ = ["Evaluating", "Loader", "StudyInterrupted", "run_planned"]

Row = Mapping[str, Any]
OWN = {
    "output": "each cell has its own file in the folder of the study",
    "resume": "each cell continues its own file",
    "shard": "several processes can run one study",
    "manifest": "each cell has its own record in cell.json",
    "data": "each cell has its own record in cell.json",
    "compare_with": "compare cells with each other, or with controls",
}
"""Options of `evaluate` that a study does not take → why."""
_ASIDE = ("grader", "answer_field", "controls", "twin_tokens", "engine", "options", "on_event")
_WITHOUT_EFFECT = {"batch_size", "executor", "on_error", "record", "refill_threshold", "seed"}


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a study; what its cells have done is kept.

    `finished` and `total`: numbers of cells. `folder`: the folder of the study. `resume`: the call
    or command that continues.
    """

    def __init__(self, finished: int, total: int, folder: Path, resume: str) -> None:
        super().__init__(
            f"interrupted; {finished} of {total} cells are finished, and what the others have done "
            f"is kept in {str(folder)!r}; to continue:\n  {resume}"
        )
        self.finished, self.total, self.folder, self.resume = finished, total, folder, resume


@dataclass(frozen=True)
class Evaluating:
    """How the cells of a study are evaluated."""

    rows: Sequence[Row]
    given: Mapping[str, Any]
    """Options of `evaluate`."""
    asked: RunOptions
    """Options of the runs."""

    @classmethod
    def read(cls, rows: Sequence[Row], given: Mapping[str, Any]) -> Evaluating:
        """Check options.

        Raises:
            TypeError: an option is unknown.
            LatentMASError: a study does not take an option, or options do not fit together.
            UnknownNameError: the grader or a control is unknown.
        """
        for name, why in OWN.items():
            if name in given:
                raise LatentMASError(f"sweep takes no {name!r}: {why}")
        plain = {name: value for name, value in given.items() if name not in _ASIDE}
        asked, _ = merge_options("sweep", given.get("options"), plain)
        controls = given.get("controls", ())
        if isinstance(controls, str):
            raise LatentMASError(f"controls is a sequence of names, such as [{controls!r}]")
        for name in controls:
            if name not in CONTROLS:
                raise UnknownNameError("control", name, CONTROLS)
        open_grader(given.get("grader", "exact"))
        return cls(rows, given, asked)

    def facts(self) -> dict[str, Any]:
        """What scores depend on, as plain data."""
        judge = open_grader(self.given.get("grader", "exact"))
        options = self.asked.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        return {
            "rows": digest_rows(self.rows),
            "grader": [judge.name, repr(sorted(judge.options.items()))],
            "answer_field": self.given.get("answer_field", "answer"),
            "controls": list(self.given.get("controls", ())),
            "twin_tokens": self.given.get("twin_tokens"),
            "options": options,
        }

    def check(self, plan: Plan) -> None:
        """Check that rows have the inputs of a graph and answers.

        Raises:
            DataError: some lack a field; the error lists them.
        """
        if not self.rows:
            raise DataError("there are no rows to evaluate")
        names = [*plan.graph.inputs, str(self.given.get("answer_field", "answer"))]
        errors: dict[int, LatentMASError] = {}
        for number, row in enumerate(self.rows):
            found = (field_problem(f"sample {number}", row, name) for name in names)
            problem = next((one for one in found if one is not None), None)
            if problem is not None:
                errors[number] = DataError(problem)
        if errors and self.asked.on_error != "keep":
            raise bad_samples(errors, len(self.rows))


class Loader:
    """Loads the systems of cells; a backbone that the next cell has too stays loaded."""

    def __init__(self, origin: Origin, where: Mapping[str, Any]) -> None:
        """Load nothing yet.

        Args:
            origin: The team.
            where: Keywords of `Plan.load`.
        """
        self._origin, self._where = origin, where
        self._last: System | None = None

    def load(self, plan: Plan, seed: int) -> System:
        """The system of a cell, not trained yet."""
        if self._last is not None and not _share_backbones(plan, self._last.plan):
            self.forget()
        self._last = self._origin.load(plan, seed, self._last, **self._where)
        return self._last

    def forget(self) -> None:
        """Release what is loaded."""
        import torch

        self._last = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def run_planned(
    folder: Path,
    grid: Grid,
    planned: Sequence[PlannedCell],
    evaluating: Evaluating,
    train_rows: Sequence[Row] | None,
    loader: Loader,
    *,
    retry: bool,
    progress: bool,
) -> list[CellResult | FailedCell]:
    """Run the cells of a study, those with the same backbones one after another.

    Args:
        folder: Folder of the study.
        grid: What is varied.
        planned: Cells.
        evaluating: How they are evaluated.
        train_rows: Rows to train on, or None.
        loader: Loads their systems.
        retry: Whether to run failed cells again.
        progress: Whether to print lines on stderr.

    Returns:
        What came out of each cell, in their order.

    Raises:
        StudyInterrupted: Ctrl-C was pressed.
    """

    def job(one: PlannedCell) -> Job:
        return Job(one.cell, lambda: _run(folder, grid, one, evaluating, train_rows, loader))

    order = sorted(range(len(planned)), key=lambda place: _backbones(grid, planned[place]))
    say = _say if progress else _quiet
    ended: list[JobEnd] = []

    def on_end(end: JobEnd) -> None:
        ended.append(end)
        say(_line(end))

    try:
        found = run_jobs(
            folder,
            [job(planned[place]) for place in order],
            retry=retry,
            on_end=on_end,
            on_wait=lambda count: say(f"waiting for {count} cells that other processes run"),
            after_failure=loader.forget,
        )
    except KeyboardInterrupt:
        done = sum(isinstance(end.found, CellResult) for end in ended)
        again = f"lm.sweep(…, folder={str(folder)!r}, resume=True)"
        raise StudyInterrupted(done, len(planned), folder, again) from None
    by_place = dict(zip(order, found, strict=True))
    return [by_place[place] for place in range(len(planned))]


def _run(
    folder: Path,
    grid: Grid,
    one: PlannedCell,
    evaluating: Evaluating,
    train_rows: Sequence[Row] | None,
    loader: Loader,
) -> CellResult:
    """Train and evaluate one cell; its checkpoints are removed at the end."""

    def prepare(place: Path) -> System:
        system = loader.load(one.plan, one.seed)
        if train_rows is not None:
            train(
                system,
                train_rows,
                output_dir=place / "training",
                resume="auto",
                seed=one.seed,
                progress=False,
                **one.training,
            )
        return system

    own = {"seed": one.seed} if evaluating.asked.do_sample else {}
    runs = {name: {**run, **own} for name, run in grid.runs.items()}
    facts = {"parameters": one.plan.n_parameters}
    result = run_cell(
        folder,
        one.cell,
        prepare,
        evaluating.rows,
        runs=runs,
        measure=lambda system: facts,
        **evaluating.given,
    )
    for checkpoint in (folder / one.cell.name / "training").glob("*/checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    return result


def _backbones(grid: Grid, one: PlannedCell) -> list[int]:
    """Places of the values that choose backbones."""
    names = [name for name in grid.over if name.partition(".")[0] == "backbone"]
    return [grid.over[name].index(one.cell.settings[name]) for name in names]


def _share_backbones(one: Plan, other: Plan) -> bool:
    own = {planned.spec.fingerprint for planned in one.backbones.values()}
    return any(planned.spec.fingerprint in own for planned in other.backbones.values())


def _line(end: JobEnd) -> str:
    """A cell that has ended, in one line."""
    head = f"[{end.number}/{end.total}] {in_words(end.cell.settings)}"
    if isinstance(end.found, FailedCell):
        said = f"failed: {end.found.error or end.found.kind}"
    else:
        found = end.found.evaluations.items()
        said = ", ".join(f"{name} {_score(one)}".strip() for name, one in found)
    if end.seconds is None:
        return f"{head}: {said} (from before)"
    rest = end.total - end.number
    left = f", about {_time(end.left)} left" if rest and end.left is not None else ""
    return f"{head}: {said}; {_time(end.seconds)}{left}"


def _score(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['score']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quiet(text: str) -> None:
    pass

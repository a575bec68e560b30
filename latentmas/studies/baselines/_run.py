"""`run_baseline`: a baseline and the team on the same rows, each a cell of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError, TrainingInterrupted
from latentmas.evaluation import Grader
from latentmas.evaluation.runner import name_samples
from latentmas.evaluation.settings import WITHOUT_EFFECT
from latentmas.io import digest_rows
from latentmas.plan import Plan, RunOptions
from latentmas.runtime import System, link_digests
from latentmas.spec import Graph
from latentmas.studies.baselines._base import (
    Baseline,
    BaselineJob,
    Budget,
    Effort,
    MadeBaseline,
    Row,
    count_parameters,
)
from latentmas.studies.baselines._checks import (
    Problems,
    check_comparison,
    check_numbers,
    read_run_options,
)
from latentmas.studies.baselines._registry import open_baseline
from latentmas.studies.baselines._table import BaselineReport
from latentmas.studies.cells import Cell, CellResult, run_cell

__all__ = ["TEAM", "run_baseline"]

TEAM = "team"
AGAIN = "run the same comparison again, with the same folder"
"""What continues a training that was interrupted."""


def run_baseline(
    name: str,
    team: System | Plan | Graph,
    rows: Sequence[Row],
    *,
    folder: str | Path,
    train_rows: Sequence[Row] | None = None,
    max_steps: int = 100,
    train_batch_size: int = 16,
    learning_rate: float | None = None,
    seed: int = 0,
    seeds: int = 1,
    with_team: bool = True,
    grader: Any = "exact",
    answer_field: str = "answer",
    run_options: RunOptions | Mapping[str, Any] | None = None,
    load: Callable[[Plan], System] | None = None,
    progress: bool = False,
    on_event: Any = (),
    **options: Any,
) -> BaselineReport:
    """Make a baseline from a team's graph, and evaluate both on the same rows.

    Each system is a cell of the study in `folder`: what is finished there is read, and what was
    stopped continues.

    Args:
        name: Name of the baseline, such as `"single"` or `"lora"`; `latentmas baselines` lists all.
        team: The team: a loaded system, or a plan or graph, which is loaded if needed.
        rows: Samples with the inputs of the graph and the correct answer.
        folder: Folder of the study.
        train_rows: Training rows with the same fields, for a baseline that trains.
        max_steps: Number of optimizer steps of its training.
        train_batch_size: Number of rows per step.
        learning_rate: Peak learning rate; None uses the baseline's own.
        seed: First random seed of trainings, and that of untrained links of a plan or graph.
        seeds: Number of trainings of a baseline that trains, with one seed each.
        with_team: Whether the team is evaluated, too.
        grader: Grader of the answers: a registered name, a `Grader`, or a function of the generated
            text and the correct answer.
        answer_field: Field with the correct answer.
        run_options: Options of all runs, as `RunOptions` or a mapping.
        load: Function that loads the team from its plan; None uses `plan.load(seed=seed)`.
        progress: Whether trainers show their progress on stderr.
        on_event: Called with each event of the runs.
        **options: Options of the baseline.

    Returns:
        Scores with intervals, paired differences, and what training and evaluation took.

    Raises:
        LatentMASError: Something cannot work; all of it is found before weights are loaded, and
            the error lists it.
        UnknownNameError: The baseline or the grader is unknown.
        DataError: Rows lack fields; or the folder holds cells of another team, other rows or other
            options.
    """
    problems = Problems()
    asked = RunOptions()
    with problems.kept():
        asked = read_run_options(run_options)
    with problems.kept():
        check_numbers(
            learning_rate, max_steps=max_steps, train_batch_size=train_batch_size, seeds=seeds
        )
    baseline, plan, judge = check_comparison(
        open_baseline=partial(open_baseline, name, **options),
        plan=lambda: team.compile() if isinstance(team, Graph) else _plan_of(team),
        rows=rows,
        train_rows=train_rows,
        folder=Path(folder),
        grader=grader,
        answer_field=answer_field,
        keep=asked.on_error == "keep",
        problems=problems,
    )
    if judge is not None and judge is not grader:
        judge.close()  # it was opened to be checked; each evaluation opens its own
    problems.raise_all()
    assert baseline is not None and plan is not None and judge is not None
    study = _Study(
        folder=Path(folder),
        given=team if isinstance(team, System) else None,
        plan=plan,
        load=load,
        seed=seed,
        rows=rows,
        train_rows=train_rows or [],
        budget=Budget(max_steps, train_batch_size, learning_rate),
        grader=grader,
        judge=judge,
        answer_field=answer_field,
        run_options=asked,
        progress=progress,
        on_event=on_event,
    )
    cells = {TEAM: [study.team_cell()]} if with_team else {}
    numbers = range(seed, seed + seeds) if baseline.trains else [seed]
    cells[name] = [study.baseline_cell(baseline, number) for number in numbers]
    clusters = [one.split()[0] for one in name_samples(rows)]
    return BaselineReport.of(cells, clusters)


def _plan_of(team: System | Plan) -> Plan:
    if isinstance(team, System | Plan):
        return team.plan if isinstance(team, System) else team
    raise TypeError(f"team is a {type(team).__name__}; give a System, a Plan or a Graph")


@dataclass
class _Study:
    """The cells of one comparison, and what they have in common."""

    folder: Path
    given: System | None
    plan: Plan
    load: Callable[[Plan], System] | None
    seed: int
    rows: Sequence[Row]
    train_rows: Sequence[Row]
    budget: Budget
    grader: Any
    judge: Grader
    answer_field: str
    run_options: RunOptions
    progress: bool
    on_event: Any
    made: dict[str, MadeBaseline] = field(default_factory=dict)

    @cached_property
    def team(self) -> System:
        """The loaded team."""
        if self.given is not None:
            return self.given
        return self.plan.load(seed=self.seed) if self.load is None else self.load(self.plan)

    def team_cell(self) -> CellResult:
        """The team, as it is."""
        state: Any = {"seed": self.seed}
        if self.given is not None or self.load is not None:
            state = link_digests(self.team)
        cell = Cell({"system": TEAM}, {**self._common(), "plan": self.plan.digest, "links": state})
        return self._run(cell, lambda _: self.team, lambda _: _team_facts(self.team))

    def baseline_cell(self, baseline: Baseline, seed: int) -> CellResult:
        """The baseline with one seed."""
        options = baseline.options.model_dump(mode="json", exclude_defaults=True)
        settings: dict[str, Any] = {"system": baseline.name}
        settings |= {key: _setting(value) for key, value in options.items()}
        depends_on = {**self._common(), "plan": self.plan.digest}
        if baseline.trains:
            budget = self.budget
            settings |= {"steps": budget.max_steps, "batch": budget.batch_size, "seed": seed}
            if budget.learning_rate is not None:
                settings["rate"] = budget.learning_rate
            depends_on["train_rows"] = digest_rows(self.train_rows)
        cell = Cell(settings, depends_on)

        def prepare(folder: Path) -> System:
            _check_begun(folder, cell)
            try:
                found = self.made[cell.name] = baseline.make(self._job(folder, seed))
            except TrainingInterrupted as stop:
                raise TrainingInterrupted(stop.step, stop.checkpoint, AGAIN) from None
            return found.system

        def facts(system: System) -> dict[str, Any]:
            found = self.made[cell.name]
            return {"effort": found.effort.to_dict(), **found.facts}

        return self._run(cell, prepare, facts)

    def _run(self, cell: Cell, prepare: Any, measure: Any) -> CellResult:
        return run_cell(
            self.folder,
            cell,
            prepare,
            self.rows,
            measure=measure,
            grader=self.grader,
            answer_field=self.answer_field,
            options=self.run_options,
            on_event=self.on_event,
        )

    def _common(self) -> dict[str, Any]:
        """What the results of all cells depend on."""
        told = self.run_options.model_dump(mode="json")
        return {
            "rows": digest_rows(self.rows),
            "options": {name: one for name, one in told.items() if name not in WITHOUT_EFFECT},
            "grader": [self.judge.name, dict(self.judge.options)],
            "answer_field": self.answer_field,
        }

    def _job(self, folder: Path, seed: int) -> BaselineJob:
        return BaselineJob(
            team=self.team,
            train_rows=self.train_rows,
            folder=folder,
            budget=self.budget,
            answer_field=self.answer_field,
            seed=seed,
            run_options=self.run_options,
            grader=self.grader,
            progress=self.progress,
        )


def _check_begun(folder: Path, cell: Cell) -> None:
    """Note what a cell is made from, so that another one does not continue it.

    Raises:
        DataError: The folder holds a training that was begun with something else.
    """
    path = folder / "begun.txt"
    if path.exists() and path.read_text(encoding="utf-8") != cell.digest:
        raise DataError(
            f"{str(folder)!r} holds a training that was begun with another team, other rows or "
            "other options; delete it, or choose another folder for the study"
        )
    write_text_atomically(path, cell.digest)


def _setting(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else repr(value)


def _team_facts(team: System) -> dict[str, Any]:
    """What training the team took, by its history."""
    steps = rows = 0
    trained = set[str]()
    for record in team.history:
        told, arguments = record.manifest, record.arguments
        trained.update(told.get("links", ()))
        own = int(told.get("steps") or 0)
        batch = arguments.get("per_device_train_batch_size", 0) * arguments.get(
            "gradient_accumulation_steps", 1
        )
        steps, rows = steps + own, rows + own * int(batch) * int(told.get("processes") or 1)
    weights = {
        id(weight): weight.numel()
        for id_ in trained & set(team.link_ids())
        for weight in team.link(id_).parameters()
    }
    learned = sum(one.n_parameters for one in team.agent_adapters().values())
    effort = Effort(
        trained_parameters=sum(weights.values()) + learned,
        parameters=count_parameters(team),
        steps=steps,
        rows=rows,
        tokens=None if rows else 0,
    )
    return {"effort": effort.to_dict()}

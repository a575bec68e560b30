"""Everything that is wrong with a comparison, found before weights are loaded, and all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from latentmas.arguments import refuse, whole
from latentmas.atomic import check_writable
from latentmas.errors import LatentMASError, unexpected_keyword
from latentmas.evaluation import Grader, open_grader
from latentmas.plan import Plan, RunOptions
from latentmas.spec import Graph, field_problem
from latentmas.studies.baselines._base import Baseline, Row

__all__ = ["Problems", "check_numbers", "check_rows", "read_run_options"]

_SHOWN = 5
"""Maximum number of rows to name."""


class Problems:
    """Collects what is wrong, and raises all of it."""

    def __init__(self) -> None:
        self._found: list[Exception] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error of the block for later."""
        try:
            yield
        except (LatentMASError, TypeError) as error:
            self._found.append(error)

    def add(self, message: str) -> None:
        """Add a problem by its message."""
        self._found.append(LatentMASError(message))

    def raise_all(self) -> None:
        """Raise the only problem, or one error that lists them.

        Raises:
            LatentMASError: There are problems; a single one is raised as it is.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            told = "\n".join(f"  - {error}" for error in self._found)
            raise LatentMASError(f"{len(self._found)} problems:\n{told}")


def check_rows(what: str, rows: Sequence[Row], fields: Sequence[str], problems: Problems) -> None:
    """Whether there are rows, and each has certain fields.

    Args:
        what: Name of the rows, such as `"rows"`.
        rows: The rows.
        fields: Fields that they need.
        problems: Takes what is wrong.
    """
    if not len(rows):
        problems.add(f"{what} is empty; give at least one row")
        return
    found = [
        problem
        for number, row in enumerate(rows)
        for name in dict.fromkeys(fields)
        if (problem := field_problem(f"{what}, row {number}", row, name, null=False))
    ]
    for problem in found[:_SHOWN]:
        problems.add(problem)
    if len(found) > _SHOWN:
        problems.add(f"{what}: {len(found) - _SHOWN} more fields are missing")


def check_numbers(rate: float | None, **numbers: Any) -> None:
    """Whether numbers of steps, rows and seeds are whole and positive, and the rate is positive.

    Raises:
        LatentMASError: One is not.
    """
    for name, value in numbers.items():
        whole(name, value)
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < inf):
        raise refuse("learning_rate", rate, "give a number above 0, or None")


def read_run_options(given: RunOptions | Mapping[str, Any] | None) -> RunOptions:
    """Options of the runs, from a model or from keywords.

    Raises:
        LatentMASError: They do not fit.
        TypeError: One is unknown.
    """
    if given is None or isinstance(given, RunOptions):
        return given or RunOptions()
    for name in given:
        if name not in RunOptions.model_fields:
            raise unexpected_keyword("run_options", name, list(RunOptions.model_fields))
    return RunOptions(**given)


def check_comparison(
    *,
    open_baseline: Callable[[], Baseline],
    plan: Callable[[], Plan],
    rows: Sequence[Row],
    train_rows: Sequence[Row] | None,
    folder: Path,
    grader: Any,
    answer_field: str,
    keep: bool,
    problems: Problems,
) -> tuple[Baseline | None, Plan | None, Grader | None]:
    """Judge everything, and keep what is wrong in `problems`.

    With `keep`, rows that lack fields count as wrong.
    """
    baseline: Baseline | None = None
    compiled: Plan | None = None
    judge: Grader | None = None
    with problems.kept():
        baseline = open_baseline()
    with problems.kept():
        compiled = plan()
    with problems.kept():
        judge = open_grader(grader)
    with problems.kept():
        check_writable(folder / "cell.json")
    inputs = () if compiled is None else compiled.graph.inputs
    needs = () if judge is None else judge.needs
    check_rows("rows", rows, () if keep else [*inputs, answer_field, *needs], problems)
    if baseline is None:
        return baseline, compiled, judge
    if baseline.trains and train_rows is None:
        problems.add(
            f"baseline {baseline.name!r} is trained; give its training rows "
            "(train_rows=…, --train-data)"
        )
    elif baseline.trains:
        check_rows("train_rows", train_rows or [], [*inputs, answer_field], problems)
    if compiled is not None:
        for problem in baseline.problems(compiled):
            problems.add(problem)
        with problems.kept():
            _compiles(baseline.graph(compiled), compiled)
    return baseline, compiled, judge


def _compiles(graph: Graph, team: Plan) -> None:
    """Compile a baseline's graph; what the team's backbones are like is known."""
    known = {key: (backbone.spec, backbone.info) for key, backbone in team.backbones.items()}
    specs = graph.spec().backbones
    facts = {k: known[k][1] for k, spec in specs.items() if k in known and known[k][0] == spec}
    graph.compile(facts=facts)

"""`sweep`: train and evaluate a team at all combinations of settings, and compare them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentmas.atomic import check_writable, write_text_atomically
from latentmas.errors import DataError, LatentMASError
from latentmas.io import digest_rows
from latentmas.safe_data import read_json
from latentmas.spec import Graph
from latentmas.studies.cells import Cell, CellResult, Setting, read_cell
from latentmas.studies.grid import Grid, PlannedCell, plan_cells
from latentmas.studies.jobs import FailedCell, check_cells, read_failure
from latentmas.studies.origins import Origin, open_origin
from latentmas.studies.pictures import plots_of, write_page
from latentmas.studies.study import Evaluating, Loader, run_planned
from latentmas.studies.tables import StudyTable, study_table
from latentmas.viz import HeatMap, LinePlot

__all__ = ["Sweep", "plan_sweep", "read_sweep", "sweep"]

FILE = "study.json"
FORMAT = 1
LARGEST = 2**22
RUN_ROUNDS = "run_rounds"
FORMATS = (".md", ".tex", ".csv", ".json")
LONGEST = 200
"""Maximum length of an error below a table."""
UNTRAINED = "The teams are not trained."


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep; `print` shows the table."""

    folder: Path
    """Folder of the study, with a folder for each cell."""
    name: str
    """Name of the team."""
    grid: Grid
    """What was varied."""
    trained: bool
    """Whether the cells were trained."""
    results: list[CellResult | FailedCell] = field(repr=False)
    """All cells that have been run, in the order of the table."""

    @property
    def cells(self) -> list[CellResult]:
        """Finished cells."""
        return [one for one in self.results if isinstance(one, CellResult)]

    @property
    def failed(self) -> list[FailedCell]:
        """Cells that could not be finished."""
        return [one for one in self.results if isinstance(one, FailedCell)]

    def table(self) -> StudyTable:
        """One row per combination of settings, with mean, deviation and interval over seeds.

        Raises:
            DataError: no cell has been run.
        """
        return self._table

    @cached_property
    def _table(self) -> StudyTable:
        runs: dict[str, Setting] = {f"rounds={n}": n for n in self.grid.run_rounds}
        remarks = [] if self.trained else [UNTRAINED]
        missing = len(self.grid.cells()) - len(self.results)
        remarks += [f"Number of cells that have not been run: {missing}."] if missing else []
        errors = Counter(shorten(str(cell.error or cell.kind)) for cell in self.failed)
        for error, count in errors.items():
            remarks.append(f"{count} cell{'s' * (count > 1)} failed: {error}")
        return study_table(self.results, runs=runs or {"": ""}, run=RUN_ROUNDS, remarks=remarks)

    def plots(self) -> dict[str, HeatMap | LinePlot]:
        """Plots by the names of their files: a heat map of two settings, scores over numbers."""
        return plots_of(self.table())

    def write(self, folder: str | Path | None = None) -> list[Path]:
        """Write the table, the plots and the page.

        The table is `table.md`, `.tex`, `.csv` and `.json`; plots are `.svg`, and `.png` where
        matplotlib is installed (the extra `viz`); the page is `index.html`.

        Args:
            folder: Where to write; None: the folder of the study.

        Returns:
            The files.

        Raises:
            DataError: no cell has been run, or a file cannot be written.
        """
        place, table = Path(folder or self.folder), self.table()
        written = [table.write(place / f"table{suffix}") for suffix in FORMATS]
        suffixes = (".svg", ".png") if find_spec("matplotlib") else (".svg",)
        for name, plot in plots_of(table).items():
            written += [plot.save(place / f"{name}{suffix}") for suffix in suffixes]
        page = write_page(place / "index.html", f"Sweep of {self.name}", table, self.results)
        return [*written, page]

    def __str__(self) -> str:
        return str(self.table())


def shorten(text: str) -> str:
    """An error that fits below a table."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def sweep(
    team: Graph | str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path,
    over: Mapping[str, Sequence[Setting]],
    train_rows: Sequence[Mapping[str, Any]] | None = None,
    run_rounds: Sequence[int] = (),
    seeds: int | Sequence[int] = 1,
    training: Mapping[str, Any] | None = None,
    device: str | Mapping[str, str] | None = None,
    load: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    trust_remote_code: bool = False,
    **evaluation: Any,
) -> Sweep:
    """Train and evaluate a team once for every combination of settings and every seed.

    Each combination with a seed is a cell, with a folder of its own, in which its training and its
    evaluations continue where they were stopped. The same call again runs what is missing. Several
    processes may run one study at the same time: each cell is run by one of them, and all return
    the whole study. A cell that fails is recorded, and the others go on.

    These names can be varied: `link` and `inner` (kinds of all latent edges and of all inner
    links), `link.OPTION`, `inner.OPTION`, `expansion` and `init` of links, `latent_steps`,
    `max_new_tokens`, `rounds`, `backbone` and `backbone.NAME` (sources), `train_rounds`, and fields
    of the configurations of loops, such as `outer.learning_rate`.

    Args:
        team: A graph, a graph file, or the folder of a saved team, whose links all cells start
            with.
        rows: Rows to evaluate on, with the inputs of the graph and the correct answer.
        folder: Folder of the study.
        over: Name → values; every combination is run.
        train_rows: Rows to train on. None: the teams are evaluated untrained.
        run_rounds: Numbers of rounds at which each cell is evaluated, without another training.
            Empty: that of the graph.
        seeds: Random seeds of links and trainings, or their number, from 0.
        training: Keywords of `lm.train`, such as `loops`, `settings` and `max_steps`.
        device: Device of all agents, or devices by agent.
        load: Further keywords of `Plan.load`, such as `device_map`.
        resume: Whether to run failed cells again.
        progress: Whether to print a line on stderr when a cell ends.
        trust_remote_code: Accept files that request code from a model's repository.
        **evaluation: Options of `evaluate`, such as `grader`, `controls` and `batch_size`. With
            `do_sample`, answers are sampled with the cell's seed.

    Returns:
        All cells, with their table.

    Raises:
        LatentMASError: something is wrong with what is varied; the error lists all problems, before
            any weights are loaded.
        DataError: rows lack fields; or the folder holds these cells for another team, other data
            or another training.
        StudyInterrupted: Ctrl-C was pressed; what the cells have done is kept.
    """
    place = Path(folder)
    check_writable(place / FILE)
    _check_alone()
    grid = read_grid(over, seeds=seeds, run_rounds=run_rounds)
    origin = open_origin(team, trust_remote_code=trust_remote_code)
    evaluating = Evaluating.read(rows, evaluation)
    loading = {**(load or {}), "device": device}
    planned = _plan(origin, grid, evaluating, train_rows, training, loading)
    check_cells(place, [one.cell for one in planned])
    name, trained = origin.spec.name, train_rows is not None
    _write(place, name, grid, trained)
    loader = Loader(origin, loading)
    results = run_planned(
        place, grid, planned, evaluating, train_rows, loader, retry=resume, progress=progress
    )
    return Sweep(place, name, grid, trained, results)


def plan_sweep(
    team: Graph | str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path,
    over: Mapping[str, Sequence[Setting]],
    train_rows: Sequence[Mapping[str, Any]] | None = None,
    run_rounds: Sequence[int] = (),
    seeds: int | Sequence[int] = 1,
    training: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    **evaluation: Any,
) -> list[PlannedCell]:
    """Check a sweep and compile its cells; nothing is loaded, run or written.

    Arguments and errors are those of `sweep`.
    """
    grid = read_grid(over, seeds=seeds, run_rounds=run_rounds)
    origin = open_origin(team, trust_remote_code=trust_remote_code)
    evaluating = Evaluating.read(rows, evaluation)
    planned = _plan(origin, grid, evaluating, train_rows, training, load or {})
    check_cells(Path(folder), [one.cell for one in planned])
    return planned


def _plan(
    origin: Origin,
    grid: Grid,
    evaluating: Evaluating,
    train_rows: Sequence[Mapping[str, Any]] | None,
    training: Mapping[str, Any] | None,
    loading: Mapping[str, Any],
) -> list[PlannedCell]:
    """The cells of a sweep, checked."""
    depends_on = {
        "evaluation": evaluating.facts(),
        "train_rows": None if train_rows is None else digest_rows(train_rows),
        "weights": origin.facts(),
        "dtype": loading.get("dtype"),
    }
    planned = plan_cells(
        origin,
        grid,
        train_rows=train_rows,
        training=dict(training or {}),
        options=evaluating.asked.model_dump(),
        depends_on=depends_on,
    )
    evaluating.check(planned[0].plan)
    return planned


def read_grid(
    over: Mapping[str, Sequence[Setting]],
    *,
    seeds: int | Sequence[int] = 1,
    run_rounds: Sequence[int] = (),
) -> Grid:
    """What a sweep varies, as given by the user.

    Args:
        over: Name → values.
        seeds: Seeds, or their number.
        run_rounds: Numbers of rounds of the evaluations.

    Raises:
        TypeError: a value is not a sequence of plain values.
    """
    found: dict[str, tuple[Setting, ...]] = {}
    for name, values in over.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
            raise TypeError(f"over[{name!r}] is {values!r:.60}; give a list of values")
        for value in values:
            if not isinstance(value, str | int | float | bool | None):
                raise TypeError(
                    f"over[{name!r}] holds {value!r:.60}; give plain values (text, numbers, true "
                    "or false), such as the source of a backbone or the kind of a link"
                )
        found[name] = tuple(values)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    return Grid(found, tuple(numbers), tuple(run_rounds))


def read_sweep(folder: str | Path) -> Sweep:
    """Read the results of a sweep, as far as it has come, without running anything.

    Args:
        folder: Folder of the study.

    Raises:
        DataError: the folder does not hold a sweep, or a file of it is damaged.
    """
    place = Path(folder)
    try:
        found = read_json(place / FILE, LARGEST)
        if found["format"] != FORMAT:
            raise DataError("it was written by another version of latentmas")
        over = {str(name): tuple(values) for name, values in found["over"].items()}
        grid = Grid(over, tuple(found["seeds"]), tuple(found["run_rounds"]))
        cells = [Cell(settings) for settings in grid.cells()]
        name, trained = str(found["name"]), bool(found["trained"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError, LatentMASError) as error:
        raise DataError(
            f"{str(place)!r} does not hold the results of a sweep: {error!r:.200}"
        ) from error
    results: list[CellResult | FailedCell] = []
    for cell in cells:
        result, failure = read_cell(place, cell), read_failure(place, cell)
        if result is not None and result.evaluations.keys() >= grid.runs.keys():
            results.append(result)
        elif failure is not None:
            results.append(failure)
    return Sweep(place, name, grid, trained, results)


def _check_alone() -> None:
    """Check that this process is not one of a group, which would wait for each other's cells.

    Raises:
        LatentMASError: it was started by torchrun with others.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise LatentMASError(
            "a sweep runs in one process, but torchrun has started "
            f"{os.environ['WORLD_SIZE']}; start the same sweep several times without torchrun, "
            "with a GPU for each (CUDA_VISIBLE_DEVICES), and they share the cells"
        )


def _write(folder: Path, name: str, grid: Grid, trained: bool) -> None:
    """Note what the folder is the study of."""
    content = {
        "format": FORMAT,
        "name": name,
        "trained": trained,
        "over": {name: list(values) for name, values in grid.over.items()},
        "seeds": list(grid.seeds),
        "run_rounds": list(grid.run_rounds),
    }
    write_text_atomically(folder / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

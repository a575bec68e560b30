"""The cells of a sweep: all combinations of values, checked before any weight is loaded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentmas.errors import GraphError, LatentMASError
from latentmas.plan import Plan
from latentmas.spec import canonical_json
from latentmas.studies.axes import Axis, changed_graph, changed_training, read_axis
from latentmas.studies.cells import Cell, Setting, in_words
from latentmas.studies.origins import Origin
from latentmas.training import TrainingPlan, plan_training

__all__ = ["SEED", "Grid", "PlannedCell", "combinations", "plan_cells"]

SEED = "seed"
_SHOWN = 8
"""Maximum number of problems that are listed with all cells that have them."""


@dataclass(frozen=True)
class Grid:
    """What a sweep varies."""

    over: Mapping[str, tuple[Setting, ...]]
    """Name → values, in the order of the table."""
    seeds: tuple[int, ...]
    """Random seeds; each combination is a cell for each seed."""
    run_rounds: tuple[int, ...] = ()
    """Numbers of rounds at which each cell is evaluated; empty for the plan's own."""

    def cells(self) -> list[dict[str, Setting]]:
        """Settings of all cells, with their seeds."""
        return [{**one, SEED: seed} for one in combinations(self.over) for seed in self.seeds]

    @property
    def runs(self) -> dict[str, dict[str, int]]:
        """Name of each evaluation of a cell → its options."""
        return {f"rounds={n}": {"rounds": n} for n in self.run_rounds} or {"": {}}


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything that it is made of."""

    cell: Cell
    plan: Plan
    seed: int
    training: Mapping[str, Any]
    """Keywords of `lm.train`."""


def combinations(over: Mapping[str, Sequence[Setting]]) -> list[dict[str, Setting]]:
    """Every combination of one value per name; the last name changes fastest."""
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def plan_cells(
    origin: Origin,
    grid: Grid,
    *,
    train_rows: Any | None,
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    depends_on: Mapping[str, Any],
) -> list[PlannedCell]:
    """Compile every cell and check the whole sweep.

    Args:
        origin: The team.
        grid: What is varied.
        train_rows: Rows to train on; None for a study without training.
        training: Keywords of `lm.train` that all cells share.
        options: Options of the evaluations.
        depends_on: What the result of every cell depends on besides its plan and training.

    Raises:
        LatentMASError: something is wrong with the sweep; the error lists all problems.
    """
    problems = _Problems()
    trains = train_rows is not None
    axes, over = _read_axes(origin, grid, trains, problems)
    problems.found += _conflicts(grid, trains, training, options)
    made = []
    for settings in combinations(over):  # of what is right, to find what else is wrong
        values = {axes[name]: value for name, value in settings.items()}
        one = _make(origin, settings, values, train_rows, training, problems)
        made += [one] if one is not None else []
    problems.stop()
    problems.found += _same_cells(made)
    random = trains or options.get("do_sample") or any(_random(m[1]) for m in made)
    if len(grid.seeds) > 1 and not random:
        problems.found.append(
            "seeds: several seeds have no effect, since nothing is trained, sampled or started at "
            "random; leave out seeds (--seeds)"
        )
    for rounds in grid.run_rounds:
        problems.found += _depth_problems(made[0][1], rounds)
    problems.stop()
    planned = [_cell(one, seed, depends_on) for one in made for seed in grid.seeds]
    problems.found += _same_names(planned)
    problems.stop()
    return planned


_Made = tuple[dict[str, Setting], Plan, dict[str, Any], TrainingPlan | None]
"""Settings, compiled team, keywords of the training, and what the training will do."""


class _Problems:
    """Problems of a sweep, each once."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._cells: dict[str, list[str]] = {}

    def add(self, text: str, settings: Mapping[str, Setting]) -> None:
        """Note a problem of one combination."""
        self._cells.setdefault(text, []).append(in_words(settings))

    def stop(self) -> None:
        """Raise if there is a problem.

        Raises:
            LatentMASError: with all of them.
        """
        lines = list(dict.fromkeys(self.found))
        for text, cells in self._cells.items():
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            lines.append(f"{cells[0] or 'the team'}{more}: {text}")
        if lines:
            head = f"{len(lines)} problem{'s' if len(lines) != 1 else ''} in the sweep"
            raise LatentMASError("\n  ".join([head, *lines]))


def _read_axes(
    origin: Origin, grid: Grid, trains: bool, problems: _Problems
) -> tuple[dict[str, Axis], dict[str, list[Setting]]]:
    """What names stand for, and the values that can be used."""
    axes: dict[str, Axis] = {}
    over: dict[str, list[Setting]] = {}
    for name, values in grid.over.items():
        try:
            axes[name] = read_axis(name, origin.spec, grid.over)
        except LatentMASError as error:
            problems.found.append(f"{name}: {error}")
            continue
        if axes[name].loop and not trains:
            problems.found.append(
                f"{name}: has no effect without training; give train_rows (--train-data)"
            )
            continue
        if not values:
            problems.found.append(f"{name}: has no values; give at least one")
        told = {place: axes[name].problem(value) for place, value in enumerate(values)}
        problems.found += [f"{name}: {text}" for text in told.values() if text is not None]
        twice = [value for place, value in enumerate(values) if value in values[:place]]
        problems.found += [f"{name}: {value!r} is listed twice" for value in dict.fromkeys(twice)]
        fine = [value for place, value in enumerate(values) if told[place] is None]
        over |= {name: list(dict.fromkeys(fine))} if fine else {}
    problems.found += _number_problems(grid)
    return axes, over


def _number_problems(grid: Grid) -> Iterable[str]:
    """What is wrong with seeds and rounds."""
    for name, numbers, least in (("seeds", grid.seeds, 0), ("run_rounds", grid.run_rounds, 1)):
        if len(set(numbers)) < len(numbers):
            yield f"{name}: a number is listed twice"
        if any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in numbers):
            yield f"{name}: takes whole numbers from {least}, found {list(numbers)!r:.60}"
    if not grid.seeds:
        yield "seeds: give at least one"


def _conflicts(
    grid: Grid, trains: bool, training: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterable[str]:
    """Settings that other arguments override, or that nothing reads."""
    for name in ("latent_steps", "rounds", "max_new_tokens"):
        if name in grid.over and options.get(name) is not None:
            yield f"{name}: has no effect, since the evaluations are given {name} as well"
    if grid.run_rounds and options.get("rounds") is not None:
        yield "run_rounds: leave out rounds, which sets the depth of all evaluations"
    if "rounds" in grid.over and grid.run_rounds and (not trains or "train_rounds" in grid.over):
        why = "train_rounds sets those of the training" if trains else "nothing is trained"
        yield f"rounds: has no effect, since run_rounds sets those of the evaluations and {why}"
    own = training.get("settings") or {}
    for name in grid.over:
        loop, _, field = ("outer.rounds" if name == "train_rounds" else name).partition(".")
        if field in own.get(loop, ()):
            yield f"{name}: the settings of the training set it too; leave one of them out"
    for name in ("seed", "output_dir", "resume", "progress", "callbacks", "eval_rows"):
        if name in training:
            yield f"training: {name!r} is set by the sweep itself; leave it out"


def _make(
    origin: Origin,
    settings: dict[str, Setting],
    values: Mapping[Axis, Setting],
    train_rows: Any | None,
    training: Mapping[str, Any],
    problems: _Problems,
) -> _Made | None:
    """Compile one combination and plan its training; None if that is impossible."""
    try:
        plan = origin.compile(changed_graph(origin.spec, values))
        keywords = changed_training(training, values)
        if train_rows is None:
            return settings, plan, {}, None
        keywords = _within_reach(plan, keywords)
        stages = plan_training(plan, train_rows, history=origin.history, **keywords)
    except GraphError as error:
        for problem in error.problems:
            problems.add(str(problem), settings)
        return None
    except (LatentMASError, TypeError, ValueError) as error:
        problems.add(str(error), settings)
        return None
    running = {stage.loop: stage for stage in stages.running}
    for axis in values:
        if axis.loop and axis.loop not in running:
            why = next(one.reason for one in stages.stages if one.loop == axis.loop)
            problems.add(
                f"{axis.name} has no effect, since the {axis.loop} loop does not run ({why})",
                settings,
            )
    for stage in stages.running:
        wrong = _config_problem(stage.loop, stage.settings)
        if wrong is not None:
            problems.add(f"training: {wrong}", settings)
    return settings, plan, keywords, stages


def _within_reach(plan: Plan, keywords: dict[str, Any]) -> dict[str, Any]:
    """Leave out the outer links that a training of fewer rounds cannot reach: feedback, mostly."""
    own = dict((keywords.get("settings") or {}).get("outer", {}))
    rounds = own.get("rounds")
    if not isinstance(rounds, int) or "train_links" in own or "train_links" in keywords:
        return keywords
    outer = [link for link in plan.replace(rounds=rounds).links if link.role == "outer"]
    reached = [link.id for link in outer if link.differentiable and link.n_parameters]
    if len(reached) == sum(link.n_parameters > 0 for link in outer) or not reached:
        return keywords
    settings = {**keywords["settings"], "outer": {**own, "train_links": reached}}
    return {**keywords, "settings": settings}


def _config_problem(loop: str, settings: Mapping[str, Any]) -> str | None:
    from latentmas.training import loops

    try:
        loops.get(loop).parts()[1](**{**settings, "output_dir": "unused", "use_cpu": True})
    except (TypeError, ValueError, ImportError) as error:
        return f"{loop}: {error}"
    return None


def _same_cells(made: Sequence[_Made]) -> Iterable[str]:
    """Combinations that make the same team and the same training."""
    seen: dict[str, dict[str, Setting]] = {}
    told: set[tuple[str, ...]] = set()
    for settings, plan, _, stages in made:
        ran = [] if stages is None else [(s.loop, dict(s.settings)) for s in stages.running]
        key = canonical_json({"plan": _effective(plan), "training": repr(ran)})
        other = seen.setdefault(key, settings)
        names = tuple(name for name in settings if other[name] != settings[name])
        if names and names not in told:
            told.add(names)
            first = in_words({name: other[name] for name in names})
            last = in_words({name: settings[name] for name in names})
            yield f"{', '.join(names)}: has no effect; {first} and {last} make the same cell"


def _effective(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, without sizes of links that have no weights."""
    data = plan.model_dump(mode="json", include={"backbones": True, "steps": True})
    data["limits"] = [agent.max_new_tokens for agent in plan.graph.agents]
    data["links"] = []
    for link in plan.links:
        options = dict(link.options)
        if link.n_parameters == 0:
            options.pop("expansion", None)
        data["links"].append([link.id, link.kind, link.init, link.norm, options])
    return data


def _random(plan: Plan) -> bool:
    """Whether a link starts at random, so that an untrained team depends on the seed."""
    return any(link.n_parameters and "head" not in link.needs for link in plan.links)


def _depth_problems(plan: Plan, rounds: int) -> list[str]:
    try:
        plan.replace(rounds=rounds)
    except GraphError as error:
        return [f"run_rounds: {problem.message}; {problem.hint}" for problem in error.problems]
    return []


def _cell(made: _Made, seed: int, depends_on: Mapping[str, Any]) -> PlannedCell:
    settings, plan, keywords, stages = made
    ran = {} if stages is None else {s.loop: repr(dict(s.settings)) for s in stages.running}
    own = {"team": plan.digest, "training": ran}
    cell = Cell({**settings, SEED: seed}, {**depends_on, **own})
    return PlannedCell(cell, plan, seed, keywords)


def _same_names(planned: Sequence[PlannedCell]) -> Iterable[str]:
    """Cells whose folders would have the same name."""
    seen: dict[str, Cell] = {}
    for one in planned:
        other = seen.setdefault(one.cell.name, one.cell)
        if other.settings != one.cell.settings:
            yield (
                f"{in_words(other.settings)} and {in_words(one.cell.settings)}: their folders "
                f"would have the same name, {one.cell.name!r}"
            )

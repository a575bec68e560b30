"""Which loops a team goes through, judged by its graph, its links and the data. No weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from latentmas.errors import LatentMASError, UnknownNameError, unexpected_keyword
from latentmas.links import link_kinds
from latentmas.plan import Plan
from latentmas.runtime.history import TrainingRecord
from latentmas.training.adapter_config import plain_adapters
from latentmas.training.config import LinkConfig
from latentmas.training.data import Data, TrainingRows, read_rows
from latentmas.training.loops import Choice, Start, in_order, loops

__all__ = ["Stage", "TrainingPlan", "plan_training"]

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One loop of a training, or one that is left out."""

    loop: str
    runs: bool
    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the loop's configuration."""
    steps: int = 0
    rate: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do, in order, with the reason for each loop; `print` shows it."""

    rows: int
    """Number of training rows."""
    stages: Sequence[Stage]
    """Stages in order."""

    @property
    def running(self) -> list[Stage]:
        """The loops that run."""
        return [stage for stage in self.stages if stage.runs]

    def __str__(self) -> str:
        lines = [f"{self.rows} rows; links are trained by {len(self.running)} loops"]
        number = 0
        for stage in self.stages:
            if not stage.runs:
                lines.append(f"  -  {stage.loop:<8}left out: {stage.reason}")
                continue
            number += 1
            work = f"{stage.steps} steps of {stage.batch_size} rows, rate {stage.rate:g}"
            lines += [f"  {number}  {stage.loop:<8}{work}", f"     {'':<8}because {stage.reason}"]
        return "\n".join(lines)


def plan_training(
    plan: Plan,
    rows: Data,
    *,
    history: Sequence[TrainingRecord] = (),
    loops: Collection[str] | None = None,
    settings: Settings | None = None,
    **common: Any,
) -> TrainingPlan:
    """Choose loops, steps and rates.

    Args:
        plan: Plan of the team.
        rows: Rows to train on.
        history: Earlier trainings of its links, as in `system.history`. Links that no record names
            count as untrained.
        loops: Names of the loops to run, even if they find themselves useless; None chooses the
            useful ones.
        settings: Fields of single configurations, by loop.
        **common: Fields of the configurations of all loops that have them.

    Raises:
        DataError: The data cannot be read, or has no rows.
        LatentMASError: LM402, no loop is useful.
        UnknownNameError: A loop is unknown.
        TypeError: No loop has the given field.
    """
    known = in_order()
    for name in (*(loops or ()), *(settings or {})):
        if name not in known:
            raise UnknownNameError("training loop", name, known)
    _check_fields(known, common)
    if "train_adapters" in common:
        common["train_adapters"] = plain_adapters(common["train_adapters"])
    data = read_rows(rows, common.get("columns"))
    data.check(plan.graph.inputs, "the data")
    own = (settings or {}).get("outer", {})
    adapters = bool(own.get("train_adapters", common.get("train_adapters")))
    start = replace(_start(plan, data, history, common), adapters=adapters)
    stages = []
    for name, loop in known.items():
        choice = loop.choose(start)
        runs, reason = choice.runs, choice.reason
        if common.get("train_links") is False and not loop.trains_adapters:
            runs, reason = False, "train_links=False leaves the links as they are"
        if loops is not None:
            runs = name in loops
            reason = "you asked for it" if runs else "you did not ask for it"
        own = {
            **choice.settings,
            **_known(loop.parts()[1], common),
            **(settings or {}).get(name, {}),
        }
        stages.append(_stage(name, replace(choice, runs=runs, reason=reason), own, len(data)))
    if not any(stage.runs for stage in stages):
        told = "; ".join(f"{stage.loop}: {stage.reason}" for stage in stages)
        raise LatentMASError(f"LM402: there is nothing to train: {told}")
    return TrainingPlan(len(data), stages)


def _start(
    plan: Plan, rows: TrainingRows, history: Sequence[TrainingRecord], common: Mapping[str, Any]
) -> Start:
    shared = set.intersection(*(set(row) for row in rows.plain()))
    trained = {id for record in history for id in record.manifest.get("links", ())}
    random = [
        link.id
        for link in plan.links
        if link.n_parameters and link.id not in trained and not _speaks(link.kind)
    ]
    start = Start(plan, frozenset(shared), tuple(random), targets=common.get("targets"))
    answer = common.get("answer_field") or start.answer_field
    return Start(plan, start.fields, start.random, answer, start.targets)


def _speaks(kind: str) -> bool:
    """Whether links of a kind go through the vocabulary, which works without training."""
    return "head" in link_kinds.get(kind).needs


def _stage(name: str, choice: Choice, own: Mapping[str, Any], rows: int) -> Stage:
    """A loop with the steps and the rate of its own settings, or by default."""
    loop = loops.get(name)
    kind = loop.parts()[1]
    values: dict[str, Any] = {one.name: one.default for one in fields(kind)} | dict(own)
    batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    in_epoch = max(1, math.ceil(rows / batch))
    steps = int(values["max_steps"])
    if steps < 1:
        wanted = own.get("num_train_epochs")
        most = in_epoch * (choice.epochs or loop.epochs)
        steps = min(choice.steps or loop.steps, most)
        steps = steps if wanted is None else max(1, math.ceil(in_epoch * wanted))
    settings, rate = {**own, "max_steps": steps}, float(values["learning_rate"])
    return Stage(name, choice.runs, choice.reason, settings, steps, rate, batch)


def _known(kind: type[LinkConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind) if one.init}
    return {name: value for name, value in given.items() if name in names}


def _check_fields(known: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    """Every field is one of some loop's configuration."""
    kinds = [loop.parts()[1] for loop in known.values()]
    names = {one.name: None for kind in kinds for one in fields(kind) if one.init}
    for name in common:
        if name not in names:
            raise unexpected_keyword("train", name, list(names))

"""Sweeps of the relay's team, and what the report takes from any sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentmas.studies.cells import Setting
from latentmas.studies.paper._base import Outcome
from latentmas.studies.paper.tasks import (
    relay_correct,
    relay_graph,
    relay_rows,
    relay_training,
    training_of,
)
from latentmas.studies.paper.verdicts import Verdict, judge
from latentmas.studies.paper.work import Work
from latentmas.studies.summary import StudyRow, difference_of
from latentmas.studies.sweeps import Sweep, sweep

__all__ = ["outcome_of", "pair_verdict", "relay_sweep", "row_of"]


def relay_sweep(work: Work, over: Mapping[str, Sequence[Setting]]) -> Sweep:
    """The relay's team, trained and evaluated at all combinations of settings."""
    sizes = work.sizes
    return sweep(
        relay_graph(work, sizes),
        relay_rows(sizes),
        folder=work.folder,
        over=over,
        train_rows=relay_training(sizes, 0),
        seeds=work.seeds,
        training=training_of(sizes),
        device=work.device,
        resume=True,
        progress=work.progress,
        grader=relay_correct,
    )


def row_of(found: Sweep, settings: Mapping[str, Setting]) -> StudyRow | None:
    """The row of a sweep's table with certain settings; None if there is none with a score."""
    rows = [row for row in found.table().rows if row.score is not None]
    return next((row for row in rows if settings.items() <= row.settings.items()), None)


def pair_verdict(
    claim: str, one: StudyRow | None, other: StudyRow | None, what: str, **options: Any
) -> Verdict:
    """The verdict on a claim that one row has a higher score than another."""
    pair = None if one is None or other is None else difference_of(one, other)
    mean, interval = (None, None) if pair is None else (pair.mean, pair.interval)
    return judge(claim, mean, interval, what=what, **options)


def outcome_of(
    work: Work, found: Sweep, caption: str, verdicts: Sequence[Verdict], notes: Sequence[str] = ()
) -> Outcome:
    """The outcome of a section that is a sweep."""
    return Outcome(
        verdicts=verdicts,
        tables={caption: found.table().sheet()},
        n=work.sizes.rows,
        seeds=work.seeds,
        plots=list(found.plots().values()),
        notes=notes,
        errors=[str(one) for one in found.failed],
    )

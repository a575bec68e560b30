"""Scores of cells that differ in their seed alone: mean, deviation, intervals, differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentmas.evaluation import Difference, mean_interval, paired_difference, tango, wilson
from latentmas.studies.cells import CellResult, Setting
from latentmas.studies.jobs import FailedCell

__all__ = ["StudyRow", "difference_of", "summarise_cells"]


@dataclass(frozen=True)
class StudyRow:
    """One combination of settings, over its seeds."""

    settings: Mapping[str, Setting]
    """Settings, without the seed."""
    scores: tuple[float, ...]
    """Score of each seed's cell, 0 to 1; empty where all cells have failed."""
    failed: int
    """Number of cells that have failed."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of the mean score. All answers to one question, whatever their
    seed, are one cluster."""
    difference: Difference | None = None
    """Score minus that of the table's first row, paired by question."""
    others: Mapping[str, Difference] = field(default_factory=dict)
    """Score minus that of each control, paired by question."""
    new_tokens: float = 0.0
    """Mean number of generated tokens per row, over all agents."""
    latent_steps: float = 0.0
    """Mean number of latent steps per row, over all agents."""
    by_row: tuple[float, ...] = field(default=(), repr=False)
    """Score of each row of the data, as the mean over seeds."""
    questions: tuple[int, ...] = field(default=(), repr=False)
    """For each row of the data, the number of the first one with the same question."""

    @property
    def score(self) -> float | None:
        """Mean over seeds; None where all cells have failed."""
        return math.fsum(self.scores) / len(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (with n - 1); None for fewer than two seeds."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "settings": dict(self.settings),
            "seeds": len(self.scores),
            "failed": self.failed,
            "questions": len(set(self.questions)),
            "score": self.score,
            "deviation": self.deviation,
            "interval": None if self.interval is None else list(self.interval),
            "difference": None if self.difference is None else self.difference.to_dict(),
            "others": {name: one.to_dict() for name, one in self.others.items()},
            "new_tokens": self.new_tokens,
            "latent_steps": self.latent_steps,
        }


def summarise_cells(
    settings: Mapping[str, Setting],
    cells: Sequence[CellResult | FailedCell],
    evaluation: str = "",
    *,
    first: StudyRow | None = None,
) -> StudyRow:
    """Summarise one evaluation of cells that differ only in their seed.

    Args:
        settings: Settings that the row shows.
        cells: Finished and failed cells, on the same rows of data.
        evaluation: Name of the evaluation.
        first: Row to compare with.

    Raises:
        LatentMASError: a cell lacks the evaluation.
    """
    done = [cell.evaluation(evaluation) for cell in cells if isinstance(cell, CellResult)]
    if not done:
        return StudyRow(settings, (), len(cells))
    rows, questions = _mean([one["row_scores"] for one in done]), tuple(done[0]["row_questions"])
    others = {
        name: _paired(rows, _mean([one["others"][name]["row_scores"] for one in done]), questions)
        for name in done[0].get("others", {})
    }
    count = sum(one["rows"] for one in done)
    row = StudyRow(
        settings,
        tuple(one["score"] for one in done),
        len(cells) - len(done),
        interval=_interval(rows, questions),
        others=others,
        new_tokens=sum(one["new_tokens"] for one in done) / count,
        latent_steps=sum(one["latent_steps"] for one in done) / count,
        by_row=rows,
        questions=questions,
    )
    if first is None:
        return row
    return StudyRow(**{**vars(row), "difference": difference_of(row, first)})


def difference_of(one: StudyRow, other: StudyRow) -> Difference | None:
    """Score of one row of a table minus that of another, paired by question.

    Returns:
        The difference; None if a row has no score, or their data differ.
    """
    if not one.by_row or one.questions != other.questions:
        return None
    return _paired(one.by_row, other.by_row, one.questions)


def _mean(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Mean over seeds of each row's score."""
    return tuple(math.fsum(own) / len(scores) for own in zip(*scores, strict=True))


def _interval(rows: Sequence[float], questions: Sequence[int]) -> tuple[float, float]:
    if len(set(rows)) == 1:  # a bootstrap over equal clusters would have no width
        return wilson(rows[0], len(set(questions)))
    return mean_interval(rows, questions)


def _paired(one: Sequence[float], other: Sequence[float], questions: Sequence[int]) -> Difference:
    if tuple(one) == tuple(other):  # likewise
        return Difference(0.0, tango(0, 0, len(set(questions))), 0, 0)
    return paired_difference(one, other, clusters=questions)

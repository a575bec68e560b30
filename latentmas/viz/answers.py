"""What a team was asked, what it answered and whether that is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from latentmas.errors import LatentMASError
from latentmas.viz.drawing.labels import shorten
from latentmas.viz.pages import Cell, Table, text_cell

if TYPE_CHECKING:
    from latentmas.runtime import RunResult

__all__ = ["LONGEST", "Answers", "Scores"]

LONGEST = 4_000
"""Characters of a text that are shown."""
_ROWS, _SHORT = 200, 300
"""Rows of the table of every answer, and characters of a text there."""

Scores = Sequence[float | None]
"""A score for each sample, from 0 (wrong) to 1 (right); None where it is not known."""


@dataclass(frozen=True)
class Answers:
    """The answers of a run, and of its twin, beside the right ones where they are known."""

    totals: Sequence[str]
    """How many answers of the run and of its twin are right, and by which grader."""
    first: Table
    """The first samples, with what was asked."""
    every: Table | None
    """All samples, in short, where right answers or scores are known."""

    @classmethod
    def of(
        cls,
        result: RunResult,
        samples: Sequence[Mapping[str, str]],
        twin: RunResult | None,
        gold: Sequence[str | None] | None,
        scores: Scores | None,
        twin_scores: Scores | None,
        grader: str | None,
    ) -> Answers:
        """Put them beside each other.

        Raises:
            LatentMASError: The number of right answers or scores differs from that of the answers,
                a score is out of range, or a grader is named without scores.
        """
        count = len(result.texts)
        _check_length("gold", gold, count)
        _check_scores("scores", scores, count)
        _check_scores("twin_scores", twin_scores, count)
        if grader is not None and scores is None and twin_scores is None:
            raise LatentMASError(f"grader is {grader!r:.60} without scores; give scores, too")
        columns: dict[str, list[str]] = {}
        if gold is not None:
            columns["gold answer"] = ["–" if text is None else str(text) for text in gold]
        for team, run, marks in (("", result, scores), ("text twin's ", twin, twin_scores)):
            if run is not None:
                columns[f"{team}answer"] = [_answer(run, number) for number in range(count)]
            if marks is not None:
                columns[f"{team}score"] = [_score_text(score) for score in marks]
        known = gold is not None or scores is not None or twin_scores is not None
        return cls(
            totals=list(_totals(scores, twin_scores, grader)),
            first=_first(columns, samples, result),
            every=_every(columns, count) if known and count > len(samples) else None,
        )


def _check_length(name: str, values: Sequence[object] | None, count: int) -> None:
    if values is not None and len(values) != count:
        raise LatentMASError(f"{name} has {len(values)} entries for {count} answers")


def _check_scores(name: str, scores: Scores | None, count: int) -> None:
    _check_length(name, scores, count)
    for number, score in enumerate(() if scores is None else scores):
        if score is not None and not (isinstance(score, Real) and 0 <= score <= 1):
            raise LatentMASError(f"{name}[{number}] is {score!r:.60}; give 0 to 1, or None")


def _totals(scores: Scores | None, twin_scores: Scores | None, grader: str | None) -> Iterator[str]:
    for team, marks in (("The run", scores), ("The text twin", twin_scores)):
        known = [float(score) for score in (() if marks is None else marks) if score is not None]
        if not known:
            continue
        total = math.fsum(known)
        if set(known) <= {0.0, 1.0}:
            yield f"{team}: {total:.0f} of {len(known)} right ({total / len(known):.1%})"
        else:
            yield f"{team}: mean score {total / len(known):.3f} over {len(known)} samples"
    if grader is not None:
        yield f"Grader: {grader}"


def _first(
    columns: Mapping[str, Sequence[str]], samples: Sequence[Mapping[str, str]], result: RunResult
) -> Table:
    rows: list[Sequence[Cell]] = []
    for number, sample in enumerate(samples):
        asked = "\n".join(
            text if len(sample) == 1 else f"{name}: {text}" for name, text in sample.items()
        )
        asked_cell = text_cell(shorten(asked, LONGEST))
        rows.append([f"{number + 1}", asked_cell, *_cells(columns, number, LONGEST)])
    left = len(result.texts) - len(rows)
    more = f"; {left} more ran" if left else ""
    more += f"; {len(result.errors)} failed in all" if result.errors else ""
    return Table(f"The first samples{more}", ["sample", "asked", *columns], rows)


def _every(columns: Mapping[str, Sequence[str]], count: int) -> Table:
    shown = min(count, _ROWS)
    rows = [[f"{number + 1}", *_cells(columns, number, _SHORT)] for number in range(shown)]
    more = f"; the first {shown} of {count}" if shown < count else ""
    return Table(f"Every answer, in short{more}", ["sample", *columns], rows)


def _cells(columns: Mapping[str, Sequence[str]], number: int, limit: int) -> Iterator[Cell]:
    """The cells of a sample; scores stay on one line, long texts are cut."""
    for name, column in columns.items():
        if name.endswith("score"):
            yield column[number], "white-space:nowrap"
        else:
            yield text_cell(shorten(column[number], limit))


def _answer(result: RunResult, number: int) -> str:
    """What is shown in the answer's place where a sample has failed."""
    error = result.errors.get(number)
    return result.texts[number] if error is None else f"failed: {error}"


def _score_text(score: float | None) -> str:
    """A score in words, where it is all or nothing."""
    if score is None:
        return "–"
    return {0.0: "✗ wrong", 1.0: "✓ right"}.get(float(score), f"{score:.2f}")

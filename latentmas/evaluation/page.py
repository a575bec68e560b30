"""The page of an evaluation: its table, and every row with the answers of all systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.evaluation.runner import RowRecord
from latentmas.evaluation.tables import HEAD, notes_of, table_rows

if TYPE_CHECKING:
    from latentmas.evaluation.scoring import Evaluation
    from latentmas.viz import AnsweredRow, SystemAnswer

__all__ = ["write_page"]


def write_page(evaluation: Evaluation, path: Path) -> Path:
    """Write the page; see `Evaluation.page`."""
    from latentmas.viz import Table, report_evaluation

    table = Table(
        "Scores in per cent",
        HEAD,
        [tuple(row) for row in table_rows(evaluation)],
        numbers=range(1, len(HEAD)),
    )
    return report_evaluation(
        path,
        title=f"Evaluation: {evaluation.grader}, {evaluation.rows} rows",
        table=table,
        notes=notes_of(evaluation),
        rows=list(_rows(evaluation)),
    )


def _rows(evaluation: Evaluation) -> Iterator[AnsweredRow]:
    from latentmas.viz import AnsweredRow

    systems = [evaluation, *evaluation.others.values()]
    for records in zip(*(one.records() for one in systems), strict=True):
        first = records[0]
        yield AnsweredRow(
            number=first.row,
            fields=[
                (name, str(value)) for name, value in first.sample.items() if value != first.gold
            ],
            gold=str(first.gold),
            prompt=first.prompt,
            answers=[_answer(record) for record in records],
        )


def _answer(row: RowRecord) -> SystemAnswer:
    """The first answer of a row, with the share of correct ones if there are several."""
    from latentmas.viz import SystemAnswer

    cost = f"{row.new_tokens} tokens, {row.latent_steps} latent steps"
    if not row.answers:
        return SystemAnswer(row.system, False, "", "failed", row.error or "", cost)
    first = row.answers[0]
    if len(row.answers) > 1:
        cost = f"first of {len(row.answers)} answers, {row.score:.0%} right; {cost}"
    return SystemAnswer(
        row.system, first.right, first.answer or "", first.reason or "graded", first.text, cost
    )

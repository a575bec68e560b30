"""`Evaluation`: scores of a team on rows, with intervals, cost, and what it is compared with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.intervals import mean_interval
from latentmas.evaluation.runner import RowRecord
from latentmas.evaluation.sampling import Sampled, sampling_metrics
from latentmas.runtime import RunResult

__all__ = ["Evaluation", "compare", "score_records"]


@dataclass(frozen=True)
class Evaluation:
    """Results of a team on rows whose correct answers are known."""

    grader: str
    """Name of the grader."""
    rows: int
    """Number of rows."""
    score: float
    """Mean score, 0 to 1: the proportion of correct answers, unless the grader gives part marks;
    with several answers per row, the mean over rows."""
    interval: tuple[float, float]
    """95 % confidence interval of the score: Wilson's if every row is right or wrong, else from a
    bootstrap over questions."""
    marks: tuple[tuple[bool, ...], ...] = field(repr=False)
    """Whether each answer is correct, by row; a failed row has no answers and counts as wrong."""
    row_scores: tuple[float, ...] = field(repr=False)
    """Mean score of each row's answers."""
    clusters: tuple[str, ...] = field(repr=False)
    """Digest of each row's sample: copies of one question count as one in intervals."""
    new_tokens: int
    """Number of generated tokens over all rows and agents."""
    latent_steps: int
    """Number of latent steps over all rows and agents."""
    prompt_tokens: int
    """Number of prompt positions over all rows and agents."""
    seconds: float
    """Seconds of generation over all rows."""
    sampled: Mapping[str, float] = field(default_factory=dict)
    """With several answers per row: `"pass@4"`, `"maj@4"`, `"any of 8"` → share of rows."""
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    """Number of answers by the reason for which they ended."""
    unread: int = 0
    """Number of answers in which the grader found nothing to grade."""
    errors: Mapping[int, LatentMASError] = field(default_factory=dict)
    """Row number → error of a failed row, with `on_error="keep"`."""
    manifest_error: Exception | None = field(default=None, repr=False)
    """Error from writing the manifest, as in `RunResult`."""
    output_error: Exception | None = field(default=None, repr=False)
    """Error from writing the results file; rows after it are in memory alone."""
    others: Mapping[str, Evaluation] = field(default_factory=dict)
    """Evaluations of controls and of other systems on the same rows, by name."""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """This team's score minus each other's."""
    result: RunResult | None = field(default=None, repr=False, compare=False)
    """The run itself, of an evaluation with a manifest or a report."""
    read: Callable[[], Iterator[RowRecord]] | None = field(default=None, repr=False, compare=False)
    """Reads the rows again."""

    def records(self) -> Iterator[RowRecord]:
        """Rows in order, with texts, grades and costs; read from the results file if there is one.

        Raises:
            LatentMASError: the rows have not been kept.
        """
        if self.read is None:
            raise LatentMASError("the rows of this evaluation have not been kept")
        return self.read()

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each row's first answer is correct."""
        return tuple(any(own[:1]) for own in self.marks)

    @property
    def texts(self) -> tuple[str, ...]:
        """First answer of each row; empty for a failed row."""
        return tuple(own[0] if own else "" for own in self.sequences)

    @property
    def sequences(self) -> tuple[tuple[str, ...], ...]:
        """All answers, by row."""
        return tuple(tuple(one.text for one in row.answers) for row in self.records())

    @property
    def gold(self) -> tuple[Any, ...]:
        """Correct answer of each row; None for a row without one."""
        return tuple(row.gold for row in self.records())

    @property
    def twin(self) -> Evaluation | None:
        """Evaluation of the text twin, if it was asked for."""
        return self.others.get("twin")

    @property
    def difference(self) -> Difference | None:
        """This team's score minus the text twin's."""
        return self.differences.get("twin")

    def report(self, path: str | Path) -> Path:
        """Write an HTML page of the run, with the correct answers and the score of each row.

        It is the page of `RunResult.report`, with the twin's run next to it if there was one. For
        a page of all rows and systems, see `page`.

        Raises:
            LatentMASError: the run recorded no data for a report; evaluate with
                `record=("report",)`.
        """
        if self.result is None:
            raise LatentMASError(
                'the run recorded no data for a report; evaluate with record=("report",), or '
                "write the page of all rows with page()"
            )
        twin = self.twin
        gold = [None if one is None else str(one) for one in self.gold]
        return self.result.report(
            path,
            gold=[None if i in self.errors else one for i, one in enumerate(gold)],
            scores=[None if i in self.errors else one for i, one in enumerate(self.row_scores)],
            twin=None if twin is None else twin.result,
            twin_scores=None if twin is None else twin.row_scores,
            grader=self.grader,
        )

    def page(self, path: str | Path) -> Path:
        """Write an HTML page: the table of all systems, and every row with their answers."""
        from latentmas.evaluation.page import write_page

        return write_page(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without texts."""
        names = ("grader", "rows", "score", "new_tokens", "latent_steps", "prompt_tokens", "unread")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        facts |= {"interval": list(self.interval), "seconds": self.seconds}
        facts["finish_reasons"] = dict(self.finish_reasons)
        if self.sampled:
            facts["sampled"] = dict(self.sampled)
        if self.errors:
            facts["errors"] = {str(row): str(error) for row, error in self.errors.items()}
        for name, other in self.others.items():
            facts.setdefault("others", {})[name] = other.to_dict() | {
                "difference": self.differences[name].to_dict()
            }
        return facts

    def __str__(self) -> str:
        from latentmas.evaluation.tables import notes_of, plain_table

        return "\n".join([plain_table(self), *notes_of(self)])


def score_records(
    records: Iterable[RowRecord],
    *,
    clusters: Sequence[str],
    read: Callable[[], Iterator[RowRecord]] | None = None,
    **more: Any,
) -> Evaluation:
    """Add up rows.

    Args:
        records: the rows of one system, in order; at least one.
        clusters: digest of each row's sample.
        read: reads the rows again.
        **more: further fields of the evaluation.
    """
    marks, scores, groups = list[tuple[bool, ...]](), list[float](), list[tuple[int, ...]]()
    costs, seconds, finish = [0, 0, 0], list[float](), Counter[str]()
    errors, grader, unread = dict[int, LatentMASError](), "", 0
    for place, row in enumerate(records):
        marks.append(tuple(one.right for one in row.answers))
        groups.append(tuple(one.group for one in row.answers))
        scores.append(row.score)
        own = (row.new_tokens, row.latent_steps, row.prompt_tokens)
        costs = [a + b for a, b in zip(costs, own, strict=True)]
        seconds.append(row.seconds)
        finish.update(one.finish_reason for one in row.answers)
        unread += sum(one.answer is None and not one.right for one in row.answers)
        grader = row.grader
        if row.error is not None:
            errors[place] = DataError(row.error)
    return Evaluation(
        grader=grader,
        rows=len(marks),
        score=math.fsum(scores) / len(scores),
        interval=mean_interval(scores, clusters),
        marks=tuple(marks),
        row_scores=tuple(scores),
        clusters=tuple(clusters),
        new_tokens=costs[0],
        latent_steps=costs[1],
        prompt_tokens=costs[2],
        seconds=math.fsum(seconds),
        sampled=sampling_metrics([Sampled(*pair) for pair in zip(marks, groups, strict=True)]),
        finish_reasons=dict(sorted(finish.items())),
        unread=unread,
        errors=errors,
        read=read,
        **more,
    )


def compare(one: Evaluation, other: Evaluation) -> Difference:
    """Paired difference of two evaluations over the same rows."""
    return paired_difference(one.row_scores, other.row_scores, clusters=one.clusters)

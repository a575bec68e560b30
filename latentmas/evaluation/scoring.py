"""`evaluate`: measure the accuracy of a team's answers, with intervals and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.graders import Grader, GraderFunction, open_grader
from latentmas.evaluation.intervals import wilson
from latentmas.plan import RunOptions
from latentmas.runtime import HOOKS, RunResult, System, merge_options
from latentmas.runtime.placement import check_system
from latentmas.runtime.samples import Errors, bad_samples
from latentmas.spec import field_problem

__all__ = ["Evaluation", "evaluate", "pass_at"]

Row = Mapping[str, Any]
_SHOWN = 10
"""Maximum number of failed rows to list."""


@dataclass(frozen=True)
class Evaluation:
    """Results of a team on rows whose correct answers are known."""

    grader: str
    rows: int
    score: float
    """Proportion of correct answers, 0 to 1; with several answers per row, the mean over rows."""
    interval: tuple[float, float]
    """95 % confidence interval of the score (Wilson's, over rows; conservative with several answers
    per row)."""
    marks: tuple[tuple[bool, ...], ...] = field(repr=False)
    """Whether each answer is correct, by row; a failed row has no answers and counts as wrong."""
    sequences: tuple[tuple[str, ...], ...] = field(repr=False)
    """All answers, by row."""
    new_tokens: int
    """Number of generated tokens over all rows and agents."""
    latent_steps: int
    """Number of latent steps over all rows and agents."""
    prompt_tokens: int
    """Number of prompt positions over all rows and agents."""
    seconds: float
    pass_at: dict[int, float] = field(default_factory=dict)
    """With several answers per row: k → estimated share of rows with a correct answer among k."""
    errors: Errors = field(default_factory=dict)
    """Row number → error of a failed row, with `on_error="keep"`."""
    manifest_error: Exception | None = field(default=None, repr=False)
    """Error from writing the manifest, as in `RunResult`."""
    twin: Evaluation | None = None
    """Evaluation of the twin on the same rows."""
    difference: Difference | None = None
    """Difference between this team and its twin."""
    gold: tuple[str, ...] = field(default=(), repr=False)
    """Correct answer of each row; empty for a row without one."""
    result: RunResult | None = field(default=None, repr=False, compare=False)
    """The run itself."""

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each row's first answer is correct."""
        return tuple(any(own[:1]) for own in self.marks)

    @property
    def texts(self) -> tuple[str, ...]:
        """First answer of each row; empty for a failed row."""
        return tuple(own[0] if own else "" for own in self.sequences)

    @property
    def row_scores(self) -> tuple[float, ...]:
        """Proportion of correct answers in each row."""
        return tuple(_mean(own) for own in self.marks)

    def report(self, path: str | Path) -> Path:
        """Write an HTML page of the run, with the correct answers and the score of each row.

        It is the page of `RunResult.report`, with the twin's run next to it if there was one.

        Raises:
            LatentMASError: the run recorded no data for a report; evaluate with
                `record=("report",)`.
        """
        if self.result is None:
            raise LatentMASError("this evaluation has no run to report; call evaluate again")
        twin = self.twin
        return self.result.report(
            path,
            gold=[None if i in self.errors else one for i, one in enumerate(self.gold)],
            scores=[None if i in self.errors else one for i, one in enumerate(self.row_scores)],
            twin=None if twin is None else twin.result,
            twin_scores=None if twin is None else twin.row_scores,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without texts."""
        names = ("grader", "rows", "score", "new_tokens", "latent_steps", "prompt_tokens")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        facts |= {"interval": list(self.interval), "seconds": self.seconds}
        if self.pass_at:
            facts["pass_at"] = {str(k): share for k, share in self.pass_at.items()}
        if self.errors:
            facts["errors"] = {str(row): str(error) for row, error in self.errors.items()}
        if self.twin is not None and self.difference is not None:
            paired = self.difference
            facts["twin"] = self.twin.to_dict()
            facts["difference"] = {
                "mean": paired.mean,
                "interval": list(paired.interval),
                "won": paired.won,
                "lost": paired.lost,
            }
        return facts

    def __str__(self) -> str:
        lines = [
            f"{'':<8}{self.grader:>8}{'95 % interval':>18}{'tokens':>9}{'latent':>9}"
            f"{'prompt':>9}{'seconds':>9}",
            self._line("team"),
        ]
        if self.twin is not None:
            lines += [self.twin._line("twin"), f"team less twin: {self.difference}"]
        lines += self._more("team")
        return "\n".join(lines + ([] if self.twin is None else self.twin._more("twin")))

    def _more(self, name: str) -> list[str]:
        """Lines that only some evaluations have: pass@k and errors."""
        lines = []
        if self.pass_at:
            shares = ", ".join(f"pass@{k} {share:.1%}" for k, share in self.pass_at.items())
            lines.append(f"{name}, at least one of k answers right: {shares}")
        if self.errors:
            numbers = ", ".join(map(str, sorted(self.errors)[:_SHOWN]))
            more = ", …" if len(self.errors) > _SHOWN else ""
            count = f"{len(self.errors)} of {self.rows} rows failed and count as wrong"
            lines.append(f"{name}: {count} (from 0: {numbers}{more})")
        return lines

    def _line(self, name: str) -> str:
        low, high = self.interval
        return (
            f"{name:<8}{self.score:>8.1%}{f'{low:.1%} to {high:.1%}':>18}{self.new_tokens:>9,}"
            f"{self.latent_steps:>9,}{self.prompt_tokens:>9,}{self.seconds:>9.2f}"
        )


def evaluate(
    system: System,
    rows: Sequence[Row],
    *,
    grader: str | Grader | GraderFunction = "exact",
    answer_field: str = "answer",
    twin: System | None = None,
    manifest: str | Path | None = None,
    data: str | Path | None = None,
    options: RunOptions | None = None,
    **given: Any,
) -> Evaluation:
    """Run a team on rows and score its answers.

    Args:
        system: the team.
        rows: samples with the inputs of the graph and the correct answer.
        grader: `"exact"`, `"math"`, `"choice"` or another registered name, a `Grader`, or a
            function of the generated text and the correct answer.
        answer_field: name of the field with the correct answer.
        twin: a second team, usually the graph's text twin, to run on the same rows.
        manifest: path for the manifest of the team's run, with its score, which `latentmas.rerun`
            can repeat. It does not include the twin's run.
        data: file that the rows come from, for the manifest to refer to; without one, the manifest
            contains the rows.
        options: options of `system.run` for both teams.
        **given: single options of `system.run`, which override `options`, and hooks such as
            `on_event`. With `num_return_sequences`, all answers are scored. With
            `on_error="keep"`, rows that fail count as wrong and are listed in `errors`. With
            `record=("report",)`, `Evaluation.report` can write a page of the run.

    Returns:
        Score with interval, cost, and the paired difference from the twin.

    Raises:
        DataError: the rows are empty, or some lack an answer or an input or cannot be judged; the
            error lists them all.
        UnknownNameError: the grader is unknown.
    """
    for argument, team in (("system", system), ("twin", twin)):
        if team is not None:
            check_system(argument, team)
    judge = open_grader(grader)
    plain = {name: value for name, value in given.items() if name not in HOOKS}
    keep = merge_options("evaluate", options, plain)[0].on_error == "keep"
    answers, unanswered = _answers(rows, answer_field)
    if unanswered and not keep:
        raise bad_samples(unanswered, len(rows))

    def scored(result: RunResult) -> Evaluation:
        return _scored(result, judge, rows, answers, unanswered)

    def score(result: RunResult) -> dict[str, Any]:
        told = scored(result).to_dict()
        return {k: told[k] for k in ("grader", "rows", "score", "interval", "pass_at") if k in told}

    def run(team: System, recorder: Any) -> Evaluation:
        found = scored(team.run(rows, manifest=recorder, options=options, **given))
        if found.errors and not keep:
            raise bad_samples(found.errors, len(rows))
        return found

    recorder = None if manifest is None else system.recorder(manifest, data=data, score=score)
    found = run(system, recorder)
    if twin is None:
        return found
    other = run(twin, None)
    difference = paired_difference(found.row_scores, other.row_scores)
    return replace(found, twin=other, difference=difference)


def pass_at(k: int, right: int, answers: int) -> float:
    """Probability that at least one of k answers, drawn without replacement, is correct.

    This is the unbiased estimate of Chen et al. (2021, arXiv 2107.03374):
    1 - C(n - c, k) / C(n, k).

    Args:
        k: number of answers to draw, 1 to `answers`.
        right: number of correct answers, c.
        answers: number of answers, n.

    Raises:
        ValueError: a number is out of range.
    """
    if not 1 <= k <= answers or not 0 <= right <= answers:
        raise ValueError(
            f"expected k from 1 to {answers} and right from 0 to {answers}, not {k} and {right}"
        )
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)


def _answers(rows: Sequence[Row], name: str) -> tuple[list[Any], Errors]:
    """The correct answers, and errors for rows without one."""
    if not rows:
        raise DataError("there are no rows to evaluate")
    answers, errors = list[Any](), Errors()
    for number, row in enumerate(rows):
        problem = field_problem(f"sample {number}", row, name)
        answers.append("" if problem is not None else row[name])
        if problem is not None:
            errors[number] = DataError(problem)
    return answers, errors


def _scored(
    result: RunResult,
    judge: Grader,
    rows: Sequence[Row],
    answers: Sequence[Any],
    unanswered: Errors,
) -> Evaluation:
    marks, errors = list[tuple[bool, ...]](), {**result.errors, **unanswered}
    for number, (texts, answer) in enumerate(zip(result.sequences, answers, strict=True)):
        own: tuple[bool, ...] = ()
        try:
            if number not in errors:
                own = tuple(judge.grade(text, answer, rows[number]).right for text in texts)
        except Exception as error:  # a grader may be the caller's own code
            told = f"sample {number}: grader {judge.name!r} failed: {type(error).__name__}: {error}"
            errors[number] = DataError(told)
        marks.append(own)
    score = math.fsum(map(_mean, marks)) / len(marks)
    return Evaluation(
        grader=judge.name,
        rows=len(marks),
        score=score,
        interval=wilson(score, len(marks)),
        marks=tuple(marks),
        sequences=tuple(map(tuple, result.sequences)),
        new_tokens=sum(record.new_tokens for record in result.accounting),
        latent_steps=sum(record.latent_steps for record in result.accounting),
        prompt_tokens=sum(record.prompt_tokens for record in result.accounting),
        seconds=result.seconds,
        pass_at=_passes(marks),
        errors=dict(sorted(errors.items())),
        manifest_error=result.manifest_error,
        gold=tuple(map(str, answers)),
        result=result,
    )


def _mean(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _passes(marks: Sequence[Sequence[bool]]) -> dict[int, float]:
    """pass@k for powers of two and for all answers; empty with a single answer per row."""
    most = max(map(len, marks))
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return {
        k: math.fsum(pass_at(k, sum(own), len(own)) for own in marks if own) / len(marks)
        for k in (*powers, most)
        if most > 1
    }

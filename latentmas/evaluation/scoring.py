"""`evaluate`: how good a team's answers are, how sure that is, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.intervals import wilson
from latentmas.evaluation.metrics import Metric, metrics
from latentmas.plan import RunOptions
from latentmas.runtime import HOOKS, RunResult, System, merge_options
from latentmas.runtime.placement import check_system
from latentmas.runtime.samples import Errors, bad_samples
from latentmas.spec import field_problem

__all__ = ["Evaluation", "evaluate", "pass_at"]

Row = Mapping[str, Any]
_SHOWN = 10
"""Most failed rows that are named."""


@dataclass(frozen=True)
class Evaluation:
    """What a team made of rows whose answers are known."""

    metric: str
    rows: int
    score: float
    """Share of right answers, 0 to 1; of several answers a row, the mean over all."""
    interval: tuple[float, float]
    """95 % interval of the score (Wilson's over rows; with several answers it is on the safe
    side)."""
    marks: tuple[tuple[bool, ...], ...] = field(repr=False)
    """Whether each answer is right, by row; a row that failed has none and counts as wrong."""
    sequences: tuple[tuple[str, ...], ...] = field(repr=False)
    """All answers, by row."""
    new_tokens: int
    """Tokens that agents wrote, over all rows."""
    latent_steps: int
    """Latent steps, over all rows."""
    prompt_tokens: int
    """Prompt positions that agents read, over all rows."""
    seconds: float
    pass_at: dict[int, float] = field(default_factory=dict)
    """k → share of rows of which at least one of k answers is right; with several answers."""
    errors: Errors = field(default_factory=dict)
    """Number of a row → why it failed; with `on_error="keep"`."""
    manifest_error: Exception | None = field(default=None, repr=False)
    """Why the manifest could not be written, as in `RunResult`."""
    twin: Evaluation | None = None
    """The same of the text twin."""
    difference: Difference | None = None
    """This team against its twin."""
    gold: tuple[str, ...] = field(default=(), repr=False)
    """The right answer of each row; empty for a row that has none."""
    result: RunResult | None = field(default=None, repr=False, compare=False)
    """The run itself."""

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each row's first answer is right."""
        return tuple(any(own[:1]) for own in self.marks)

    @property
    def texts(self) -> tuple[str, ...]:
        """Each row's first answer; empty for a row that failed."""
        return tuple(own[0] if own else "" for own in self.sequences)

    @property
    def row_scores(self) -> tuple[float, ...]:
        """Share of right answers of each row."""
        return tuple(_mean(own) for own in self.marks)

    def report(self, path: str | Path) -> Path:
        """Write the run as a page of HTML, with the right answers and which answers are right.

        It is the page of `RunResult.report`, with the twin's run beside it, if there was one.

        Raises:
            LatentMASError: the run has recorded nothing for a report: evaluate with
                `record=("report",)`.
        """
        if self.result is None:
            raise LatentMASError("this evaluation holds no run; call evaluate again")
        twin = self.twin
        return self.result.report(
            path,
            gold=self.gold,
            scores=self.row_scores,
            twin=None if twin is None else twin.result,
            twin_scores=None if twin is None else twin.row_scores,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without texts."""
        names = ("metric", "rows", "score", "new_tokens", "latent_steps", "prompt_tokens")
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
            f"{'':<8}{self.metric:>8}{'95 % interval':>18}{'tokens':>9}{'latent':>9}"
            f"{'prompt':>9}{'seconds':>9}",
            self._line("team"),
        ]
        if self.twin is not None:
            lines += [self.twin._line("twin"), f"team less twin: {self.difference}"]
        lines += self._more("team")
        return "\n".join(lines + ([] if self.twin is None else self.twin._more("twin")))

    def _more(self, name: str) -> list[str]:
        """What only some evaluations have to tell."""
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
    metric: str | Metric = "exact",
    answer_field: str = "answer",
    twin: System | None = None,
    manifest: str | Path | None = None,
    data: str | Path | None = None,
    options: RunOptions | None = None,
    **given: Any,
) -> Evaluation:
    """Run a team over rows and score its answers.

    Args:
        system: the team.
        rows: inputs of the graph, and the right answer.
        metric: `"exact"`, `"math"` or `"choice"`, a registered name, or a function of the text and
            the right answer.
        answer_field: where the right answer stands.
        twin: another team, usually the graph's text twin, that is run over the same rows.
        manifest: file for what the team's run depends on and gave, with its score, which
            `latentmas.rerun` repeats. The twin's run is not in it.
        data: the file that the rows come from, which the manifest names; without one it keeps them.
        options: of `system.run`, for both teams; those given as keywords replace them.
        **given: single options, and `on_event` and the like. With `num_return_sequences`, all
            answers are scored. With `on_error="keep"`, rows that fail count as wrong and are
            listed in `errors`.
            With `record=("report",)`, `Evaluation.report` writes the run as a page.

    Returns:
        Score with interval, cost, and the paired difference to the twin.

    Raises:
        DataError: there are no rows, or some have no answer, lack an input, or cannot be judged;
            all are named.
        UnknownNameError: there is no such metric.
    """
    for argument, team in (("system", system), ("twin", twin)):
        if team is not None:
            check_system(argument, team)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    judge = metrics.get(metric) if isinstance(metric, str) else metric
    plain = {name: value for name, value in given.items() if name not in HOOKS}
    keep = merge_options("evaluate", options, plain)[0].on_error == "keep"
    answers, unanswered = _answers(rows, answer_field)
    if unanswered and not keep:
        raise bad_samples(unanswered, len(rows))

    def scored(result: RunResult) -> Evaluation:
        return _scored(result, name, judge, answers, unanswered)

    def score(result: RunResult) -> dict[str, Any]:
        told = scored(result).to_dict()
        return {k: told[k] for k in ("metric", "rows", "score", "interval", "pass_at") if k in told}

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
    """Chance that at least one of k answers is right, k of `answers` being drawn without return.

    The unbiased estimate of Chen et al. (2021, arXiv 2107.03374): 1 - C(n - c, k) / C(n, k).

    Args:
        k: 1 to `answers`.
        right: how many answers are right, c.
        answers: how many there are, n.

    Raises:
        ValueError: a number is out of range.
    """
    if not 1 <= k <= answers or not 0 <= right <= answers:
        raise ValueError(f"k of 1 to {answers} answers, of which 0 to {answers} are right")
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)


def _answers(rows: Sequence[Row], name: str) -> tuple[list[str], Errors]:
    """The right answers, and the errors of rows without one."""
    if not rows:
        raise DataError("there are no rows to evaluate on")
    answers, errors = list[str](), Errors()
    for number, row in enumerate(rows):
        problem = field_problem(f"sample {number}", row, name)
        answers.append("" if problem is not None else str(row[name]))
        if problem is not None:
            errors[number] = DataError(problem)
    return answers, errors


def _scored(
    result: RunResult, name: str, judge: Metric, answers: Sequence[str], unanswered: Errors
) -> Evaluation:
    marks, errors = list[tuple[bool, ...]](), {**result.errors, **unanswered}
    for number, (texts, answer) in enumerate(zip(result.sequences, answers, strict=True)):
        own: tuple[bool, ...] = ()
        try:
            if number not in errors:
                own = tuple(bool(judge(text, answer)) for text in texts)
        except Exception as error:  # a metric may be the caller's own
            told = f"sample {number}: the metric {name!r} failed: {type(error).__name__}: {error}"
            errors[number] = DataError(told)
        marks.append(own)
    score = math.fsum(map(_mean, marks)) / len(marks)
    return Evaluation(
        metric=name,
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
        gold=tuple(answers),
        result=result,
    )


def _mean(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _passes(marks: Sequence[Sequence[bool]]) -> dict[int, float]:
    """pass@k for powers of two, and for all answers; nothing where there is one of each row."""
    most = max(map(len, marks))
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return {
        k: math.fsum(pass_at(k, sum(own), len(own)) for own in marks if own) / len(marks)
        for k in (*powers, most)
        if most > 1
    }

"""`evaluate`: how good a team's answers are, how sure that is, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentmas.errors import DataError
from latentmas.evaluation.intervals import wilson
from latentmas.evaluation.metrics import Metric, metrics
from latentmas.runtime import RunResult, System
from latentmas.runtime.placement import check_system

__all__ = ["Difference", "Evaluation", "evaluate", "paired_difference"]

Row = Mapping[str, Any]
DRAWS = 4000
"""Resamples of the paired bootstrap."""


@dataclass(frozen=True)
class Difference:
    """How much better one team answers than another, on the same rows."""

    mean: float
    """Share of right answers less the other's."""
    interval: tuple[float, float]
    """95 % interval of it, from a paired bootstrap over rows."""
    won: int
    """Rows that only this team has right."""
    lost: int
    """Rows that only the other has right."""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.mean:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}; "
            f"{self.won} rows won, {self.lost} lost"
        )


@dataclass(frozen=True)
class Evaluation:
    """What a team made of rows whose answers are known."""

    metric: str
    rows: int
    score: float
    """Share of right answers, 0 to 1."""
    interval: tuple[float, float]
    """95 % interval of the score (Wilson)."""
    right: tuple[bool, ...] = field(repr=False)
    """By row."""
    texts: tuple[str, ...] = field(repr=False)
    """What the team wrote, by row."""
    new_tokens: int
    """Tokens that agents wrote, over all rows."""
    latent_steps: int
    """Latent steps, over all rows."""
    prompt_tokens: int
    """Prompt positions that agents read, over all rows."""
    seconds: float
    twin: Evaluation | None = None
    """The same of the text twin."""
    difference: Difference | None = None
    """This team against its twin."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without texts."""
        names = ("metric", "rows", "score", "new_tokens", "latent_steps", "prompt_tokens")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        facts |= {"interval": list(self.interval), "seconds": self.seconds}
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
        return "\n".join(lines)

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
    **options: Any,
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
        **options: of `system.run`, for both.

    Returns:
        Score with interval, cost, and the paired difference to the twin.

    Raises:
        DataError: there are no rows, or one has no answer or lacks an input.
        UnknownNameError: there is no such metric.
    """
    for argument, team in (("system", system), ("twin", twin)):
        if team is not None:
            check_system(argument, team)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    judge = metrics.get(metric) if isinstance(metric, str) else metric
    answers = _answers(rows, answer_field)

    def score(result: RunResult) -> dict[str, Any]:
        told = _scored(result, name, judge, answers).to_dict()
        return {key: told[key] for key in ("metric", "rows", "score", "interval")}

    recorder = None if manifest is None else system.recorder(manifest, data=data, score=score)
    found = _scored(system.run(rows, manifest=recorder, **options), name, judge, answers)
    if twin is None:
        return found
    other = _scored(twin.run(rows, **options), name, judge, answers)
    facts = {key: value for key, value in vars(found).items() if key not in ("twin", "difference")}
    return Evaluation(**facts, twin=other, difference=paired_difference(found.right, other.right))


def paired_difference(one: Sequence[bool], other: Sequence[bool], *, seed: int = 0) -> Difference:
    """The difference of two shares over the same rows, with a paired bootstrap's 95 % interval.

    Args:
        one: which rows the first has right.
        other: which the second has.
        seed: of the resampling.

    Raises:
        ValueError: the two differ in number, or are empty.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"as many rows of each, at least one; not {len(one)} and {len(other)}")
    n = len(one)
    won = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    shares = np.array([won, lost, n - won - lost]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=DRAWS)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return Difference((won - lost) / n, (float(low), float(high)), won, lost)


def _answers(rows: Sequence[Row], name: str) -> list[str]:
    if not rows:
        raise DataError("there are no rows to evaluate on")
    for number, row in enumerate(rows, start=1):
        if name not in row:
            has = ", ".join(row) or "nothing"
            raise DataError(f"row {number} lacks the field {name!r}; it has: {has}")
    return [str(row[name]) for row in rows]


def _scored(result: RunResult, name: str, judge: Metric, answers: Sequence[str]) -> Evaluation:
    right = tuple(bool(judge(t, a)) for t, a in zip(result.texts, answers, strict=True))
    score = math.fsum(right) / len(right)
    return Evaluation(
        metric=name,
        rows=len(right),
        score=score,
        interval=wilson(score, len(right)),
        right=right,
        texts=tuple(result.texts),
        new_tokens=sum(record.new_tokens for record in result.accounting),
        latent_steps=sum(record.latent_steps for record in result.accounting),
        prompt_tokens=sum(record.prompt_tokens for record in result.accounting),
        seconds=result.seconds,
    )

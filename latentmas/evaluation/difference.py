"""Difference between the scores of two teams on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentmas.evaluation.intervals import tango

__all__ = ["Difference", "paired_difference"]

DRAWS = 4000
"""Number of resamples of the paired bootstrap."""


@dataclass(frozen=True)
class Difference:
    """Difference between the scores of two teams on the same rows."""

    mean: float
    """This team's score minus the other's."""
    interval: tuple[float, float]
    """95 % confidence interval of the mean difference."""
    won: int
    """Number of rows on which this team scores higher."""
    lost: int
    """Number of rows on which the other team scores higher."""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.mean:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}; "
            f"{self.won} rows won, {self.lost} lost"
        )


def paired_difference(one: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Difference:
    """Difference of two mean scores over the same rows, with a 95 % confidence interval.

    If every row is right or wrong, this is Tango's score interval; if rows have scores between 0
    and 1, it comes from a paired bootstrap over rows.

    Args:
        one: the first team's score on each row, or whether it is correct.
        other: the second team's scores on the same rows.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: the numbers of scores differ, or there are none.
    """
    if len(one) != len(other) or not one:
        raise ValueError(
            f"expected equally many scores, at least one; not {len(one)} and {len(other)}"
        )
    n = len(one)
    by_row = [float(a) - float(b) for a, b in zip(one, other, strict=True)]
    won, lost = sum(d > 0 for d in by_row), sum(d < 0 for d in by_row)
    if {abs(d) for d in by_row} <= {0.0, 1.0}:
        return Difference((won - lost) / n, tango(won, lost, n), won, lost)
    values, counts = np.unique(by_row, return_counts=True)
    # Equal differences are interchangeable, so draw the counts of each value instead of rows.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=DRAWS) @ values / n
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(np.mean(by_row)), (float(low), float(high)), won, lost)

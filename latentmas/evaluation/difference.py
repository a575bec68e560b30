"""Two teams over the same rows: by how much their scores differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentmas.evaluation.intervals import tango

__all__ = ["Difference", "paired_difference"]

DRAWS = 4000
"""Resamples of the paired bootstrap."""


@dataclass(frozen=True)
class Difference:
    """How much better one team answers than another, on the same rows."""

    mean: float
    """Score less the other's."""
    interval: tuple[float, float]
    """95 % interval of it."""
    won: int
    """Rows on which this team scores higher."""
    lost: int
    """Rows on which the other scores higher."""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.mean:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}; "
            f"{self.won} rows won, {self.lost} lost"
        )


def paired_difference(one: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Difference:
    """The difference of two mean scores over the same rows, with a 95 % interval.

    Where every row is right or wrong, the interval is Tango's score interval; where rows have
    scores between 0 and 1, it comes from a paired bootstrap over rows.

    Args:
        one: score of the first on each row, or whether it is right.
        other: those of the second.
        seed: of the resampling.

    Raises:
        ValueError: the two differ in number, or are empty.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"as many rows of each, at least one; not {len(one)} and {len(other)}")
    n = len(one)
    by_row = [float(a) - float(b) for a, b in zip(one, other, strict=True)]
    won, lost = sum(d > 0 for d in by_row), sum(d < 0 for d in by_row)
    if {abs(d) for d in by_row} <= {0.0, 1.0}:
        return Difference((won - lost) / n, tango(won, lost, n), won, lost)
    values, counts = np.unique(by_row, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=DRAWS) @ values / n
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(np.mean(by_row)), (float(low), float(high)), won, lost)

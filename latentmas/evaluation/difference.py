"""Difference between the scores of two teams on the same rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentmas.evaluation.intervals import DRAWS, cluster_sums, tango

__all__ = ["Difference", "paired_difference"]


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "mean": self.mean,
            "interval": list(self.interval),
            "won": self.won,
            "lost": self.lost,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.mean:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}; "
            f"{self.won} rows won, {self.lost} lost"
        )


def paired_difference(
    one: Sequence[float],
    other: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Difference:
    """Difference of two mean scores over the same rows, with a 95 % confidence interval.

    If every row is right or wrong, this is Tango's score interval; if rows have scores between 0
    and 1, or belong to clusters, it comes from a paired bootstrap over clusters.

    Args:
        one: the first team's score on each row, or whether it is correct.
        other: the second team's scores on the same rows.
        clusters: rows that belong together, such as copies of one question, have equal values.
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
    single = clusters is None or len(set(clusters)) == n
    if single and {abs(d) for d in by_row} <= {0.0, 1.0}:
        return Difference((won - lost) / n, tango(won, lost, n), won, lost)
    sums, counts = cluster_sums(by_row, range(n) if clusters is None else clusters)
    pairs, times = np.unique(np.stack([sums, counts]), axis=1, return_counts=True)
    # Equal clusters are interchangeable, so draw the counts of each kind instead of clusters.
    drawn = np.random.default_rng(seed).multinomial(len(sums), times / len(sums), size=DRAWS)
    low, high = np.quantile(drawn @ pairs[0] / (drawn @ pairs[1]), [0.025, 0.975])
    return Difference(float(np.mean(by_row)), (float(low), float(high)), won, lost)

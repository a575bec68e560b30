"""Confidence intervals of measured proportions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["mean_interval", "tango", "wilson"]

Z95 = 1.959963984540054
"""Half-width of the central 95 % of a standard normal distribution."""


DRAWS = 4000
"""Number of resamples of a bootstrap."""


def mean_interval(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of the mean of scores from 0 to 1.

    If every row is right or wrong and a cluster of its own, this is Wilson's interval; otherwise it
    comes from a bootstrap over clusters.

    Args:
        scores: score of each row.
        clusters: rows that belong together, such as copies of one question, have equal values.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("expected at least one score")
    single = clusters is None or len(set(clusters)) == len(scores)
    if single and set(scores) <= {0.0, 1.0}:
        return wilson(math.fsum(scores) / len(scores), len(scores))
    sums, counts = cluster_sums(scores, range(len(scores)) if clusters is None else clusters)
    drawn = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS
    )
    low, high = np.quantile(drawn @ sums / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


def cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable] | range
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values of each cluster, and the number of its rows."""
    places: dict[Hashable, int] = {}
    numbers = [places.setdefault(one, len(places)) for one in clusters]
    return np.bincount(numbers, weights=values), np.bincount(numbers).astype(float)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927), reliable near 0 and 1 too.

    Args:
        share: proportion of successes, 0 to 1.
        n: number of samples.

    Raises:
        ValueError: `share` is outside 0 to 1, or `n` is below 1.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(
            f"expected a share from 0 to 1 and at least one sample, not {share} of {n}"
        )
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = max(0.0, middle - half) if share > 0 else 0.0  # exactly 0, without rounding errors
    return low, min(1.0, middle + half) if share < 1 else 1.0


def tango(won: int, lost: int, n: int) -> tuple[float, float]:
    """95 % confidence interval of the difference of two proportions over the same samples.

    This is the score interval of Tango (1998, Statistics in Medicine 17:891-908): all differences
    that the score test does not reject. It has a positive width even if no sample differs.

    Args:
        won: number of samples that only the first system gets right.
        lost: number of samples that only the second system gets right.
        n: number of samples.

    Raises:
        ValueError: `n` is below 1, a number is negative, or `won + lost` exceeds `n`.
    """
    if min(won, lost) < 0 or n < 1 or won + lost > n:
        raise ValueError(
            f"expected at least one sample and at most n that differ; not {won} + {lost} of {n}"
        )
    middle = (won - lost) / n
    low = -1.0 if lost == n else _crossing(Z95, -1.0, middle, won, lost, n)
    return low, 1.0 if won == n else _crossing(-Z95, middle, 1.0, won, lost, n)


def _crossing(wanted: float, low: float, high: float, won: int, lost: int, n: int) -> float:
    """Difference at which the score, a decreasing function, equals `wanted`, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if _score(middle, won, lost, n) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score(difference: float, won: int, lost: int, n: int) -> float:
    """Tango's score: distance from a hypothetical difference in its standard errors."""
    b = -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    # The maximum-likelihood share of lost samples, given the difference.
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    distance = won - lost - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)

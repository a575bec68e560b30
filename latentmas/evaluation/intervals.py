"""Confidence intervals of measured proportions."""

from __future__ import annotations

import math

__all__ = ["tango", "wilson"]

Z95 = 1.959963984540054
"""Half-width of the central 95 % of a standard normal distribution."""


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

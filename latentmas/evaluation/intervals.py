"""How sure a measured share is."""

from __future__ import annotations

import math

__all__ = ["tango", "wilson"]

Z95 = 1.959963984540054
"""Half width of the central 95 % of a standard normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `n` samples (Wilson 1927): sound near 0 and 1 too.

    Args:
        share: of successes, 0 to 1.
        n: number of samples.

    Raises:
        ValueError: `share` is no share, or there are no samples.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"a share from 0 to 1 of at least one sample, not {share} of {n}")
    spread = Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = max(0.0, middle - half) if share > 0 else 0.0  # exact, where rounding would not be
    return low, min(1.0, middle + half) if share < 1 else 1.0


def tango(won: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a difference between two shares of the same `n` samples.

    The score interval of Tango (1998, Statistics in Medicine 17:891-908): all differences that the
    score test does not reject. It has a width where no sample differs, too.

    Args:
        won: samples that only the first has right.
        lost: samples that only the second has right.
        n: all samples.

    Raises:
        ValueError: there are no samples, or more differ than there are.
    """
    if min(won, lost) < 0 or n < 1 or won + lost > n:
        raise ValueError(f"of at least one sample, at most all differ, not {won} + {lost} of {n}")
    middle = (won - lost) / n
    low = -1.0 if lost == n else _crossing(Z95, -1.0, middle, won, lost, n)
    return low, 1.0 if won == n else _crossing(-Z95, middle, 1.0, won, lost, n)


def _crossing(wanted: float, low: float, high: float, won: int, lost: int, n: int) -> float:
    """Where the score, which falls with the difference, passes a value: by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        if _score(middle, won, lost, n) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score(difference: float, won: int, lost: int, n: int) -> float:
    """Tango's statistic: the distance from a difference, in standard errors under it."""
    b = -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # of lost samples, most likely
    variance = n * (2 * share + difference * (1 - difference))
    distance = won - lost - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)

"""How sure a measured share is."""

from __future__ import annotations

import math

__all__ = ["wilson"]

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

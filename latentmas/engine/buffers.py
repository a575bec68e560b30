"""Shapes of buffers of fixed size, as the executors `static` and `cuda_graph` keep them over turns.

Shapes are rounded up, so that few of them serve all batches; a backbone keeps the last ones.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["KEPT_SHARE", "Shape", "bucket", "enlarged", "shape_for", "surplus"]

SMALLEST = 64
"""Columns of the smallest buffers."""
KEPT = 6
"""Buffers of a backbone that are kept for later turns, however large they are."""
KEPT_SHARE = 8
"""More are kept while all of a backbone's take no more than one in so many bytes of a CUDA device:
their graphs need not be captured again."""

Shape = tuple[int, int]
"""Rows and columns."""


def bucket(count: int) -> int:
    """The least power of two, or three quarters of one, that is not below `count`.

    Sizes are rounded up to these, so that few shapes of buffers and graphs serve all batches.
    """
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


def shape_for(rows: int, columns: int) -> Shape:
    """The shape of buffers that serve so many rows and columns."""
    return bucket(rows), max(SMALLEST, bucket(columns))


def enlarged(length: int, new: int) -> int:
    """Columns to ask for when `new` ones do not fit after `length`."""
    return length + max(new, length // 2)


def surplus(sizes: Sequence[int], spare: int) -> int:
    """How many buffers must go, the oldest first.

    Args:
        sizes: bytes of a backbone's kept buffers, the oldest first.
        spare: bytes within which more than `KEPT` of them may stay.
    """
    stay, total = 0, 0
    for size in reversed(sizes):
        total += size
        if stay >= KEPT and total > spare:
            break
        stay += 1
    return len(sizes) - stay

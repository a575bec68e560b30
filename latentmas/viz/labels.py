"""Where the words on edges stand: on their edge, clear of boxes and of each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from latentmas.viz.layout import Box
from latentmas.viz.pen import Pen

__all__ = ["HEIGHT", "label_spots"]

HEIGHT = 14.0
_CELL, _TRIES = 6.0, 75

Area = tuple[float, float, float, float]
Spot = tuple[float, float]
Crowd = dict[tuple[int, int], set[int]]
"""Cell of the page → edges that run through it."""


def label_spots(
    pens: Sequence[Pen], widths: Sequence[float], boxes: Iterable[Box]
) -> list[Spot | None]:
    """The centre of each edge's label, over as few other edges as can be; None without room."""
    taken: list[Area] = [(box.x, box.top, box.right, box.bottom) for box in boxes]
    crowd: Crowd = {}
    for index, pen in enumerate(pens):
        for x, y in pen.points:
            crowd.setdefault((int(x // _CELL), int(y // _CELL)), set()).add(index)
    spots: list[Spot | None] = []
    for index, (pen, width) in enumerate(zip(pens, widths, strict=True)):
        areas = [_area(spot, width) for spot in pen.spots[:_TRIES]]
        free = [a for a in areas if not any(_overlap(a, other) for other in taken)]
        best = min(free, key=lambda area: len(_passing(area, crowd) - {index}), default=None)
        if best:
            taken.append(best)
        spots.append(((best[0] + best[2]) / 2, (best[1] + best[3]) / 2) if best else None)
    return spots


def _area(spot: Spot, width: float) -> Area:
    return spot[0] - width / 2, spot[1] - HEIGHT / 2, spot[0] + width / 2, spot[1] + HEIGHT / 2


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] + 2 and b[1] < a[3] + 2


def _passing(area: Area, crowd: Crowd) -> set[int]:
    columns = range(int(area[0] // _CELL), int(area[2] // _CELL) + 1)
    rows = range(int(area[1] // _CELL), int(area[3] // _CELL) + 1)
    return set().union(*(crowd.get((i, j), ()) for i in columns for j in rows))

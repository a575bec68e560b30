"""Where boxes stand in a drawing: layers left to right, few crossings, little slant.

The method is Sugiyama's: longest-path layers, invisible way points for edges that pass a layer,
ordering by barycentres, then positions nearest to the neighbours'.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Box", "Grid", "arrange", "layers"]

Edge = tuple[str, str]
Point = str | tuple[int, int]
"""A box by its name, or the way point of edge `i` in layer `j` as `(i, j)`."""

BOX_GAP, WAY_GAP, WAY_HEIGHT = 30.0, 12.0, 10.0
SWEEPS = 12


@dataclass
class Box:
    """A rectangle with a place; `y` is its centre."""

    name: str
    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def top(self) -> float:
        """Its upper edge."""
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height / 2

    @property
    def middle(self) -> float:
        """Its centre, left to right."""
        return self.x + self.width / 2


@dataclass
class Grid:
    """Columns of boxes and way points, top to bottom, with every centre."""

    columns: list[list[Point]]
    centres: dict[Point, float]
    chains: list[list[Point]]
    """Source, way points and target of each edge."""


def layers(names: Sequence[str], edges: Sequence[Edge], late: Sequence[str] = ()) -> dict[str, int]:
    """Layer of each name: the longest path that leads to it, over edges without a cycle.

    Args:
        names: all of them.
        edges: (source, target).
        late: names to put as near to their first target as can be.
    """
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for source, target in edges:
            depth[target] = max(depth[target], depth[source] + 1)
    for name in late:
        depth[name] = min((depth[t] - 1 for s, t in edges if s == name), default=0)
    return depth


def arrange(boxes: Mapping[str, Box], edges: Sequence[Edge]) -> Grid:
    """Order the boxes of each layer and give every box and way point a centre."""
    columns: list[list[Point]] = [[] for _ in range(max(b.layer for b in boxes.values()) + 1)]
    for box in boxes.values():
        columns[box.layer].append(box.name)
    chains: list[list[Point]] = []
    for index, (source, target) in enumerate(edges):
        way: list[Point] = [(index, j) for j in range(boxes[source].layer + 1, boxes[target].layer)]
        chains.append([source, *way, target])
        for j, point in enumerate(way, boxes[source].layer + 1):
            columns[j].append(point)
    before, after = _neighbours(chains)
    columns = _ordered(columns, before, after, chains)
    heights = {p: boxes[p].height if isinstance(p, str) else WAY_HEIGHT for c in columns for p in c}
    return Grid(columns, _placed(columns, heights, before, after), chains)


Links = dict[Point, list[Point]]


def _neighbours(chains: Sequence[Sequence[Point]]) -> tuple[Links, Links]:
    before: Links = {}
    after: Links = {}
    for chain in chains:
        for one, two in itertools.pairwise(chain):
            after.setdefault(one, []).append(two)
            before.setdefault(two, []).append(one)
    return before, after


def _ordered(
    columns: list[list[Point]], before: Links, after: Links, chains: Sequence[Sequence[Point]]
) -> list[list[Point]]:
    """The best order that sweeps of barycentres find; ties keep the order of declaration."""
    best, fewest = [list(column) for column in columns], _crossings(columns, chains)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        links = before if forth else after
        place = {p: float(i) for column in columns for i, p in enumerate(column)}
        for column in columns if forth else reversed(columns):
            weights = {p: _mean([place[q] for q in links.get(p, ())], place[p]) for p in column}
            column.sort(key=weights.__getitem__)
            place |= {p: float(i) for i, p in enumerate(column)}
        crossings = _crossings(columns, chains)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _crossings(columns: Sequence[Sequence[Point]], chains: Sequence[Sequence[Point]]) -> int:
    rank = {p: (j, i) for j, column in enumerate(columns) for i, p in enumerate(column)}
    gaps: dict[int, list[tuple[int, int]]] = {}
    for chain in chains:
        for one, two in itertools.pairwise(chain):
            gaps.setdefault(rank[one][0], []).append((rank[one][1], rank[two][1]))
    count = 0
    for pairs in gaps.values():
        seen: list[int] = []
        for _, end in sorted(pairs):  # edges seen that end below this one cross it
            count += len(seen) - bisect.bisect_right(seen, end)
            bisect.insort(seen, end)
    return count


def _placed(
    columns: Sequence[Sequence[Point]], heights: Mapping[Point, float], before: Links, after: Links
) -> dict[Point, float]:
    centres: dict[Point, float] = {}
    for column in columns:
        stacked = _spread(column, [(0.0, 1.0)] * len(column), heights)
        shift = (stacked[0] + stacked[-1]) / 2
        centres |= {p: y - shift for p, y in zip(column, stacked, strict=True)}
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 else reversed(columns):
            pulls = [_pull(p, (*before.get(p, ()), *after.get(p, ())), centres) for p in column]
            centres |= dict(zip(column, _spread(column, pulls, heights), strict=True))
    return centres


def _pull(
    point: Point, others: Sequence[Point], centres: Mapping[Point, float]
) -> tuple[float, float]:
    """Where its neighbours want a point, and how strongly: long edges ought to run straight."""
    ways = [isinstance(p, tuple) for p in (point, *others)]
    weights = [(1.0, 2.0, 8.0)[ways[0] + way] for way in ways[1:]]
    total = sum(weights)
    if not total:
        return centres[point], 0.1
    return sum(w * centres[p] for w, p in zip(weights, others, strict=True)) / total, total


def _spread(
    column: Sequence[Point],
    pulls: Sequence[tuple[float, float]],
    heights: Mapping[Point, float],
) -> list[float]:
    """Centres nearest to those wanted (weighted least squares) that keep order and distance."""
    offsets = [0.0]
    for one, two in itertools.pairwise(column):
        gap = BOX_GAP if isinstance(one, str) and isinstance(two, str) else WAY_GAP
        offsets.append(offsets[-1] + (heights[one] + heights[two]) / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members: pool adjacent violators
    for (want, weight), offset in zip(pulls, offsets, strict=True):
        mean, count = want - offset, 1
        while blocks and blocks[-1][0] >= mean:
            other, mass, members = blocks.pop()
            mean = (other * mass + mean * weight) / (mass + weight)
            weight, count = mass + weight, members + count
        blocks.append((mean, weight, count))
    starts = [mean for mean, _, count in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default

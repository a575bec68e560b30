"""Feedback edges of a drawing: out of a box, down, along a lane below all boxes, up, in.

They go up and down in the gaps beside the columns, or straight below the lowest box of a column,
so that they pass through no box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentmas.viz.layout import Box
from latentmas.viz.pen import FRACTIONS, Pen

__all__ = ["BAR", "LANE", "Feedback", "lanes"]

LANE, BAR = 22.0, 9.0
"""Distance of lanes below the boxes, and of bars in the gaps."""

Bars = dict[int, list[int]]
"""Layer → edges that go up or down beside it, the nearest to its boxes first."""


@dataclass
class _Line:
    """A feedback edge whose lane is not known yet."""

    start: tuple[float, float]
    down: float
    up: float
    end: tuple[float, float]

    @property
    def span(self) -> tuple[float, float]:
        return min(self.down, self.up), max(self.down, self.up)

    def draw(self, lane: float) -> Pen:
        pen = Pen(*self.start)
        if self.down != self.start[0]:
            pen.turn(self.down, self.start[1], self.down, lane)
        pen.turn(self.down, lane, self.up, lane)
        pen.turn(self.up, lane, self.up, self.end[1])
        if self.up != self.end[0]:
            pen.turn(self.up, self.end[1], *self.end)
        pen.line(*self.end)
        low, high = self.span
        pen.spots = [(low + (high - low) * part, lane) for part in FRACTIONS]
        return pen


@dataclass
class Feedback:
    """The feedback edges, and which of them need room in the gaps."""

    boxes: Mapping[str, Box]
    edges: Mapping[int, tuple[str, str]]
    """Number of the edge → (source, target)."""
    lowest: frozenset[str]
    """Boxes with none below them in their column."""
    outs: Bars = field(default_factory=dict)
    ins: Bars = field(default_factory=dict)

    def __post_init__(self) -> None:
        for bars, which in ((self.outs, 0), (self.ins, 1)):
            for edge in sorted(self.edges, key=lambda e: -self.boxes[self.edges[e][which]].y):
                if not self.below(edge, which):
                    bars.setdefault(self.boxes[self.edges[edge][which]].layer, []).append(edge)

    def below(self, edge: int, which: int) -> bool:
        """Whether the edge meets its source (0) or target (1) at the lower side."""
        return self.edges[edge][which] in self.lowest

    def line(
        self, edge: int, ends: Sequence[tuple[float, float]], ports: Mapping[tuple[int, int], float]
    ) -> _Line:
        """The edge between its boxes.

        Args:
            edge: its number.
            ends: left and right of each column.
            ports: (edge, 0 for source or 1 for target) → y at the side of the box.
        """
        start, down = self._end(edge, 0, ends, ports)
        end, up = self._end(edge, 1, ends, ports)
        return _Line(start, down, up, end)

    def _end(
        self,
        edge: int,
        which: int,
        ends: Sequence[tuple[float, float]],
        ports: Mapping[tuple[int, int], float],
    ) -> tuple[tuple[float, float], float]:
        """The point on the box, and the x of the bar that leads there."""
        box = self.boxes[self.edges[edge][which]]
        side = 1 - 2 * which  # edges leave to the right and enter from the left
        if self.below(edge, which):
            x = box.middle + side * self._aside(edge, which)
            return (x, box.bottom), x
        bars = (self.outs, self.ins)[which][box.layer]
        bar = ends[box.layer][1 - which] + side * (12.0 + 6.0 * which + BAR * bars.index(edge))
        return ((box.x, box.right)[1 - which], ports[edge, which]), bar

    def _aside(self, edge: int, which: int) -> float:
        """Distance from the middle of the box's lower side; the farthest partners outermost."""
        box = self.boxes[self.edges[edge][which]]
        mates = [e for e, names in self.edges.items() if names[which] == box.name]
        mates.sort(key=lambda e: self._distance(e, which))
        step = min(12.0, (box.width / 2 - 16.0) / len(mates))
        return 8.0 + step * mates.index(edge)

    def _distance(self, edge: int, which: int) -> tuple[int, float]:
        near, far = (self.boxes[self.edges[edge][i]] for i in (which, 1 - which))
        return abs(far.layer - near.layer), -far.y


def lanes(spans: Sequence[tuple[float, float]], labels: Sequence[float]) -> list[int]:
    """A lane for each span: short ones nearest to the boxes, no two in one place."""
    taken: list[list[tuple[float, float]]] = []
    chosen = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0]):
        low, high = spans[index]
        room = max(12.0, (labels[index] + 12.0 - (high - low)) / 2)
        low, high = low - room, high + room
        free = (k for k, lane in enumerate(taken) if all(high < a or b < low for a, b in lane))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        chosen[index] = lane
    return chosen

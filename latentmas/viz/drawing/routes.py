"""Where edges run in a drawing, and how wide its gaps are for that.

No edge passes through a box. A forward edge crosses a column at a way point. A feedback edge goes
out of a box, down, along a lane below all boxes, and up: in the gaps beside the columns, or
straight below the lowest box of a column.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from latentmas.viz.drawing.layout import Box, Grid, Point
from latentmas.viz.drawing.scene import FRACTIONS, Pen

__all__ = ["LANE", "Geometry", "route", "turn_down"]

PORT, MARGIN = 14.0, 18.0
LANE, BAR = 22.0, 9.0
"""Distance of lanes below the boxes, and of bars in the gaps."""

Bars = dict[int, list[int]]
"""Layer → edges that go up or down beside it, the nearest to its boxes first."""

Ends = list[tuple[float, float]]
"""Left and right of each column."""
Ports = dict[tuple[int, int], float]
"""(edge, 0 for its source or 1 for its target) → y where it meets the side of that box."""


@dataclass
class Geometry:
    """A finished drawing, without ink."""

    pens: list[Pen]
    """Paths of the forward edges, then of the feedback edges."""
    left: float
    right: float
    top: float
    bottom: float


def route(
    boxes: Mapping[str, Box],
    grid: Grid,
    back: Sequence[tuple[str, str]],
    labels: Sequence[float],
    lane: float = LANE,
) -> Geometry:
    """Place the columns from left to right and run every edge.

    Args:
        boxes: by name; gives each its `x` and `y`.
        grid: order and centres of the boxes, chains of the forward edges.
        back: (source, target) of each feedback edge.
        labels: room that each edge's label takes along its edge, forward ones first.
        lane: distance of the feedback edges' lanes.
    """
    for box in boxes.values():
        box.y = grid.centres[box.name]
    lowest = frozenset(_names(column)[-1] for column in grid.columns if _names(column))
    feedback = Feedback(boxes, dict(enumerate(back, len(grid.chains))), lowest)
    ends = _columns(boxes, grid, feedback, labels)
    ports = _ports(boxes, grid, feedback)
    pens = [_forward(i, chain, boxes, grid, ends, ports) for i, chain in enumerate(grid.chains)]
    heights = [y for pen in pens for _, y in pen.points]
    floor = max([box.bottom for box in boxes.values()] + heights)
    top = min([box.top for box in boxes.values()] + heights)
    lines = [feedback.line(edge, ends, ports) for edge in feedback.edges]
    depths = lanes([line.span for line in lines], labels[len(grid.chains) :])
    first = floor + 1.2 * LANE
    pens += [line.draw(first + lane * n) for line, n in zip(lines, depths, strict=True)]
    right = max([ends[-1][1]] + [x for pen in pens for x, _ in pen.points])
    bottom = first + lane * max(depths) + 0.4 * LANE if depths else floor
    return Geometry(pens, 0.0, right + MARGIN, top, bottom)


def turn_down(boxes: Mapping[str, Box], drawn: Geometry) -> Geometry:
    """The same with its layers from top to bottom: x and y change places, of the boxes too."""
    for box in boxes.values():
        box.x, box.y = box.top, box.middle
        box.width, box.height = box.height, box.width
    for pen in drawn.pens:
        pen.path = [(command, _swapped(numbers)) for command, numbers in pen.path]
        pen.points = [(y, x) for x, y in pen.points]
        pen.spots = [(y, x) for x, y in pen.spots]
    left, right = drawn.top - MARGIN, drawn.bottom + MARGIN
    return Geometry(drawn.pens, left, right, drawn.left + MARGIN, drawn.right)


def _swapped(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(n for x, y in zip(numbers[::2], numbers[1::2], strict=True) for n in (y, x))


def _names(column: Sequence[Point]) -> list[str]:
    return [point for point in column if isinstance(point, str)]


def _columns(
    boxes: Mapping[str, Box], grid: Grid, feedback: Feedback, labels: Sequence[float]
) -> Ends:
    """Left and right of each column; gives the boxes their x."""
    ends: Ends = []
    x = MARGIN + BAR * len(feedback.ins.get(0, ()))
    for layer, column in enumerate(grid.columns):
        names = _names(column)
        width = max(boxes[name].width for name in names)
        for name in names:
            boxes[name].x = x + (width - boxes[name].width) / 2
        ends.append((x, x + width))
        bars = len(feedback.outs.get(layer, ())) + len(feedback.ins.get(layer + 1, ()))
        label = max(_labels_after(layer, boxes, grid, labels), default=0.0)
        x += width + BAR * bars + max(64.0, label + 50.0, _rise(layer, grid))
    return ends


def _labels_after(
    layer: int, boxes: Mapping[str, Box], grid: Grid, labels: Sequence[float]
) -> Iterator[float]:
    for chain, label in zip(grid.chains, labels, strict=False):
        if boxes[str(chain[0])].layer <= layer < boxes[str(chain[-1])].layer:
            yield label


def _rise(layer: int, grid: Grid) -> float:
    """Room for the steepest edge after a layer, so that it does not run upright."""
    column, y = set(grid.columns[layer]), grid.centres
    rises = [
        abs(y[one] - y[two])
        for chain in grid.chains
        for one, two in itertools.pairwise(chain)
        if one in column
    ]
    return min(200.0, max(rises, default=0.0) * 0.45)


def _ports(boxes: Mapping[str, Box], grid: Grid, feedback: Feedback) -> Ports:
    """Edges at the sides of the boxes, in the order of their far ends, feedback last."""
    at: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for edge, chain in enumerate(grid.chains):
        at.setdefault((str(chain[0]), 0), []).append((grid.centres[chain[1]], edge))
        at.setdefault((str(chain[-1]), 1), []).append((grid.centres[chain[-2]], edge))
    for edge, names in feedback.edges.items():
        for which in (0, 1):
            if not feedback.below(edge, which):
                at.setdefault((names[which], which), []).append((float("inf"), edge))
    ports: Ports = {}
    for (name, which), found in at.items():
        box = boxes[name]
        step = min(PORT, (box.height - 14.0) / len(found))
        first = box.y - step * (len(found) - 1) / 2
        ports |= {(edge, which): first + step * k for k, (_, edge) in enumerate(sorted(found))}
    return ports


def _forward(
    edge: int,
    chain: Sequence[Point],
    boxes: Mapping[str, Box],
    grid: Grid,
    ends: Ends,
    ports: Ports,
) -> Pen:
    source, target = boxes[str(chain[0])], boxes[str(chain[-1])]
    pen = Pen(source.right, ports[edge, 0])
    pen.line(ends[source.layer][1], pen.y)
    for layer, point in enumerate(chain[1:-1], source.layer + 1):
        pen.curve(ends[layer][0], grid.centres[point])
        pen.line(ends[layer][1], pen.y)
    pen.curve(ends[target.layer][0], ports[edge, 1])
    pen.line(target.x, pen.y)
    return pen


# --- feedback edges ---------------------------------------------------------------------------


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

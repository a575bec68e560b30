"""Where edges run in a drawing, and how wide its gaps are for that.

No edge passes through a box: a forward edge crosses a column at a way point, a feedback edge goes
round by the lower margin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from latentmas.viz.feedback import BAR, LANE, Feedback, lanes
from latentmas.viz.layout import Box, Grid, Point
from latentmas.viz.pen import Pen

__all__ = ["Geometry", "route", "turn_down"]

PORT, MARGIN = 14.0, 18.0

Ends = list[tuple[float, float]]
"""Left and right of each column."""
Ports = dict[tuple[int, int], float]
"""(edge, 0 for its source or 1 for its target) → y where it meets the side of that box."""


@dataclass
class Geometry:
    """A finished drawing, without ink."""

    pens: list[Pen]
    """Of the forward edges, then of the feedback edges."""
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

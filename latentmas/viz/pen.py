"""A pen that draws a path and remembers where it went."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FRACTIONS", "Pen"]

ROUND = 8.0
"""Radius of corners."""
FRACTIONS = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82, 0.46, 0.54, 0.38, 0.62, 0.3, 0.7)
"""Where along a line a label may stand, best first."""


@dataclass
class Pen:
    """A path, with sample points of the line and places for a label, best first."""

    x: float
    y: float
    path: list[tuple[str, tuple[float, ...]]] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    spots: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.append(("M", (self.x, self.y)))

    def line(self, x: float, y: float) -> None:
        """A straight line."""
        if (x, y) == (self.x, self.y):
            return
        steps = max(1, int(max(abs(x - self.x), abs(y - self.y)) / 5))
        self.points += [
            (self.x + (x - self.x) * i / steps, self.y + (y - self.y) * i / steps)
            for i in range(steps + 1)
        ]
        self.path.append(("L", (x, y)))
        self.x, self.y = x, y

    def curve(self, x: float, y: float) -> None:
        """A curve that starts and ends level; labels may stand on it."""
        bend = (self.x + x) / 2
        self.path.append(("C", (bend, self.y, bend, y, x, y)))
        steps = max(8, int(max(abs(x - self.x), abs(y - self.y)) / 5))
        self.points += [self._on_curve(x, y, i / steps) for i in range(steps + 1)]
        self.spots += [self._on_curve(x, y, part) for part in FRACTIONS]
        self.x, self.y = x, y

    def turn(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A line to the corner (x, y), rounded towards (to_x, to_y)."""
        into = min(ROUND, (abs(x - self.x) + abs(y - self.y)) / 2)
        out = min(ROUND, (abs(to_x - x) + abs(to_y - y)) / 2)
        self.line(x - into * _sign(x - self.x), y - into * _sign(y - self.y))
        self.x, self.y = x + out * _sign(to_x - x), y + out * _sign(to_y - y)
        self.path.append(("Q", (x, y, self.x, self.y)))

    def _on_curve(self, x: float, y: float, t: float) -> tuple[float, float]:
        ease = 3 * t * t - 2 * t**3
        across = 1.5 * t * (1 - t) ** 2 + 1.5 * t * t * (1 - t) + t**3
        return self.x + (x - self.x) * across, self.y + (y - self.y) * ease


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)

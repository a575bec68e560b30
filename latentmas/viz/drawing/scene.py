"""What a drawing is made of, before it is written as SVG or painted as PNG; a pen for its lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

__all__ = ["FRACTIONS", "Group", "Line", "Part", "Path", "Pen", "Rect", "Scene", "Text"]

Path = tuple[tuple[str, tuple[float, ...]], ...]
"""Commands of SVG path data, `M`, `L`, `C`, `Q` or `Z`, with absolute coordinates."""


@dataclass(frozen=True)
class Rect:
    """A rectangle with round corners; (x, y) is its upper left one."""

    style: str
    x: float
    y: float
    width: float
    height: float
    radius: float = 0.0

    def moved(self, dx: float, dy: float) -> Rect:
        """The same elsewhere."""
        return replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True)
class Text:
    """A line of text on the base line y."""

    style: str
    text: str
    x: float
    y: float

    def moved(self, dx: float, dy: float) -> Text:
        """The same elsewhere."""
        return replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True)
class Line:
    """A line along a path; an arrow has a tip at its end."""

    style: str
    path: Path
    arrow: bool = False

    def moved(self, dx: float, dy: float) -> Line:
        """The same elsewhere."""
        by = (dx, dy)
        return replace(
            self,
            path=tuple(
                (command, tuple(n + by[i % 2] for i, n in enumerate(numbers)))
                for command, numbers in self.path
            ),
        )


@dataclass(frozen=True)
class Group:
    """Parts that share a tooltip."""

    tip: str
    parts: tuple[Rect | Text | Line, ...]
    about: str = ""
    """What it draws: `agent planner`, `edge planner->critic.plan`, `source notes`."""

    def moved(self, dx: float, dy: float) -> Group:
        """The same elsewhere."""
        return replace(self, parts=tuple(part.moved(dx, dy) for part in self.parts))


Part = Rect | Text | Line | Group


@dataclass(frozen=True)
class Scene:
    """A finished drawing: everything has its place."""

    width: float
    height: float
    title: str
    description: str
    parts: tuple[Part, ...]

    def flat(self) -> Iterator[Rect | Text | Line]:
        """All parts, bottom to top, without the groups."""
        for part in self.parts:
            yield from part.parts if isinstance(part, Group) else (part,)


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

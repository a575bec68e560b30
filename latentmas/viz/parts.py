"""What a drawing is made of, before it is written as SVG or painted as PNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["Group", "Line", "Part", "Path", "Rect", "Scene", "Words"]

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
class Words:
    """A line of text on the base line y."""

    style: str
    text: str
    x: float
    y: float

    def moved(self, dx: float, dy: float) -> Words:
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
    parts: tuple[Rect | Words | Line, ...]

    def moved(self, dx: float, dy: float) -> Group:
        """The same elsewhere."""
        return replace(self, parts=tuple(part.moved(dx, dy) for part in self.parts))


Part = Rect | Words | Line | Group


@dataclass(frozen=True)
class Scene:
    """A finished drawing: everything has its place."""

    width: float
    height: float
    title: str
    description: str
    parts: tuple[Part, ...]

    def flat(self) -> Iterator[Rect | Words | Line]:
        """All parts, bottom to top, without the groups."""
        for part in self.parts:
            yield from part.parts if isinstance(part, Group) else (part,)

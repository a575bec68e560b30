"""Plots of scores with intervals, as SVG and PNG, that can be read without colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentmas.atomic import write_atomically
from latentmas.errors import DataError

__all__ = ["HeatMap", "LinePlot", "Measured"]

FAR = 8.0
"""Positions this many times apart are shown by their logarithm."""
_LIGHT, _DARK = (244, 248, 252), (8, 48, 107)


@dataclass(frozen=True)
class Measured:
    """A score with its interval, in per cent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LinePlot:
    """Scores over a number, a line for each of several settings."""

    title: str
    x: str
    """Name of the number."""
    ticks: Sequence[float]
    """Values of the number, in order."""
    lines: Mapping[str, Mapping[float, Measured]]
    """Name of a line → number → score."""

    def position(self, value: float) -> float:
        """Where a number stands, from 0 to 1: by its logarithm if numbers are far apart."""
        low, high = self.ticks[0], self.ticks[-1]
        if low > 0 and high / low >= FAR:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5

    def bounds(self) -> tuple[float, float, float]:
        """Lowest and highest tick of the scores, and the distance between two ticks."""
        points = [point for line in self.lines.values() for point in line.values()]
        low = min((point.low for point in points), default=0.0)
        high = max((point.high for point in points), default=100.0)
        if low < high / 3:
            low = 0.0
        step = next(n for n in (1, 2, 5, 10, 20, 25, 50) if n >= (high - low) / 6 or n == 50)
        return math.floor(low / step) * step, math.ceil(max(high, low + 1) / step) * step, step

    def svg(self, *, inline: bool = False) -> str:
        """The plot as SVG; `inline` for a place in a page, whose colours it takes."""
        from latentmas.viz.drawing.plot_svg import line_plot_svg

        return line_plot_svg(self, inline=inline)

    def png(self) -> bytes:
        """The plot as PNG.

        Raises:
            LatentMASError: matplotlib is not installed (the extra `viz`).
        """
        from latentmas.viz.drawing.plot_png import line_plot_png

        return line_plot_png(self)

    def save(self, path: str | Path) -> Path:
        """Write the plot as `.svg` or `.png`.

        Raises:
            DataError: the suffix is neither.
            LatentMASError: `.png` without matplotlib.
        """
        return _save(self, Path(path))


@dataclass(frozen=True)
class HeatMap:
    """Scores at all pairs of two settings; darker is higher."""

    title: str
    row: str
    """Name of the setting whose values are the rows."""
    column: str
    rows: Sequence[str]
    """Values of the setting, from top to bottom."""
    columns: Sequence[str]
    cells: Sequence[Sequence[Measured | None]]
    """A row for each of `rows`; None for a score that could not be measured."""
    range: tuple[float, float]
    """Scores of the lightest and of the darkest ground."""

    def ground(self, value: float) -> tuple[str, str]:
        """Colours of a cell's ground and of the words on it."""
        low, high = self.range
        share = (value - low) / (high - low) if high > low else 0.5
        share = min(1.0, max(0.0, share))
        mixed = [round(a + share * (b - a)) for a, b in zip(_LIGHT, _DARK, strict=True)]
        return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if share > 0.5 else "#1b1f24"

    def svg(self, *, inline: bool = False) -> str:
        """The map as SVG; `inline` for a place in a page, whose colours it takes."""
        from latentmas.viz.drawing.plot_svg import heat_map_svg

        return heat_map_svg(self, inline=inline)

    def png(self) -> bytes:
        """The map as PNG.

        Raises:
            LatentMASError: matplotlib is not installed (the extra `viz`).
        """
        from latentmas.viz.drawing.plot_png import heat_map_png

        return heat_map_png(self)

    def save(self, path: str | Path) -> Path:
        """Write the map as `.svg` or `.png`.

        Raises:
            DataError: the suffix is neither.
            LatentMASError: `.png` without matplotlib.
        """
        return _save(self, Path(path))


def _save(plot: LinePlot | HeatMap, path: Path) -> Path:
    if path.suffix not in (".svg", ".png"):
        raise DataError(f"cannot save {path.name!r}: the suffix must be .svg or .png")
    return write_atomically(path, plot.png() if path.suffix == ".png" else plot.svg())

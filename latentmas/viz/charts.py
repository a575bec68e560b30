"""Line charts as SVG: text that scales, no script, colours of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from latentmas.viz.drawing.svg import element, escape_text

__all__ = ["LOG_RATIO", "Chart", "Series", "chart", "heat_cell", "standalone"]

LOG_RATIO = 30.0
"""Heights this many times apart are drawn by their logarithm, where asked for."""

_COLOURS = 6
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340.0, 200.0, 46.0, 10.0, 8.0, 34.0

Series = Mapping[str, Sequence[tuple[float, float]]]

_PAPER = (
    "svg{background:#fff;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#aa4499;--c4:#b07c00;"
    "--c5:#3a8fbf;--mute:#57606a;--line:#d0d7de;--ink:#1b1f24}"
    'text{font:11px system-ui,"DejaVu Sans",sans-serif;fill:var(--mute)}'
    ".title{font-weight:bold;font-size:13px;fill:var(--ink)}"
    ".grid{stroke:var(--line)}.reference{stroke:var(--ink);stroke-dasharray:2 3}"
    ".curve{fill:none;stroke-width:2;stroke-linejoin:round}"
)
"""Style of a chart in a file of its own, in the light colours of the pages."""


@dataclass(frozen=True)
class Chart:
    """A finished chart."""

    title: str
    picture: Markup
    key: Sequence[tuple[Markup, str]]
    """Sign and name of each line; one alone needs no key."""


def chart(
    title: str,
    series: Series,
    *,
    x: str,
    y: str,
    reference: tuple[float, str] | None = None,
    log: bool = False,
) -> Chart:
    """A chart of lines.

    Args:
        title: what it shows.
        series: name → points; what is not finite is left out.
        x: what runs to the right.
        y: what runs upwards.
        reference: a height to compare with, and its name.
        log: heights by their logarithm, where all are above 0 and far apart.
    """
    shown = {
        name: [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
        for name, points in series.items()
    }
    heights = [b for points in shown.values() for _, b in points]
    heights += [reference[0]] if reference else []
    log = log and bool(heights) and 0 < min(heights) * LOG_RATIO < max(heights)
    frame = _Frame([a for points in shown.values() for a, _ in points], heights, log)
    parts = [*frame.grid(x, y)]
    if reference:
        parts.append(frame.reference(*reference))
    for index, points in enumerate(shown.values()):
        parts += frame.curve(index, points)
    words = "; ".join(f"{name}: {_in_words(points)}" for name, points in shown.items())
    picture = element(
        "svg",
        element("title", escape_text(f"{title}. {words}")) + "".join(parts),
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        role="img",
    )
    return Chart(title, Markup(picture), _key(list(shown)) if len(shown) > 1 else [])


def standalone(drawn: Chart) -> str:
    """A chart as the text of an SVG file, with its title above and its key below."""
    keys = "".join(
        element("g", f"{sign}", transform=f"translate({_LEFT:.0f} {20 * row})")
        + element("text", escape_text(name), x=_LEFT + 34, y=20 * row + 8)
        for row, (sign, name) in enumerate(drawn.key)
    ).replace("<svg ", '<svg width="26" height="8" ')
    picture = str(drawn.picture).replace(
        "<svg ", f'<svg width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" '
    )
    height = _HEIGHT + 34 + 20 * len(drawn.key)
    parts = [
        element("style", _PAPER),
        element("text", escape_text(drawn.title), class_="title", x=_LEFT, y=16),
        element("g", picture, transform="translate(0 22)"),
        element("g", keys, transform=f"translate(0 {_HEIGHT + 28:.0f})"),
    ]
    shown = {"width": f"{_WIDTH * 1.5:.0f}", "height": f"{height * 1.5:.0f}"}
    box = f"0 0 {_WIDTH:.0f} {height:.0f}"
    space = "http://www.w3.org/2000/svg"
    return element("svg", "".join(parts), xmlns=space, viewBox=box, **shown) + "\n"


def heat_cell(value: float | None) -> tuple[str, str]:
    """A table's cell whose ground tells its number, from 0 to 1."""
    if value is None or not math.isfinite(value):
        return ("–", "")
    share = min(1.0, max(0.0, value))
    return (f"{value:.3f}", f"background:rgba(var(--heat),{0.55 * share:.2f})")


class _Frame:
    """Axes: where numbers stand in the picture."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], log: bool) -> None:
        self.log = log
        self.left, self.right = (min(xs), max(xs)) if xs else (0.0, 1.0)
        if self.left == self.right:
            self.left, self.right = self.left - 0.5, self.right + 0.5
        heights = [self._height(y) for y in ys] or [0.0, 1.0]
        self.floor = min(heights) if log else min(0.0, *heights)
        self.top = max(heights)
        if self.floor == self.top:
            self.top = self.floor + 1.0
        self.top += 0.1 * (self.top - self.floor)

    def _height(self, y: float) -> float:
        return math.log10(y) if self.log else y

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the picture."""
        across = (x - self.left) / (self.right - self.left)
        up = (self._height(y) - self.floor) / (self.top - self.floor)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def grid(self, x: str, y: str) -> Iterator[str]:
        """Lines with numbers, and the names of the axes."""
        for tick in _ticks(self.floor, self.top, whole=self.log):
            value = 10**tick if self.log else tick
            _, height = self.at(self.left, value)
            ends = {"x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": height, "y2": height}
            yield element("line", class_="grid", **ends)
            place: dict[str, str | float] = {"x": _LEFT - 4, "y": height + 4, "text_anchor": "end"}
            yield element("text", escape_text(f"{value:.3g}"), **place)
        low = self.floor if not self.log else 10**self.floor
        for tick in _ticks(self.left, self.right, whole=True):
            across, height = self.at(tick, low)
            place = {"x": across, "y": height + 14, "text_anchor": "middle"}
            yield element("text", escape_text(f"{tick:g}"), **place)
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        yield element("text", escape_text(x), x=middle, y=_HEIGHT - 5, text_anchor="middle")
        turned = f"translate(11 {(_HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)"
        yield element("text", escape_text(y), transform=turned, text_anchor="middle")

    def reference(self, y: float, name: str) -> str:
        """A height to compare with."""
        _, height = self.at(self.left, y)
        ends = {"x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": height, "y2": height}
        words = element(
            "text", escape_text(name), x=_WIDTH - _RIGHT, y=height - 3, text_anchor="end"
        )
        return element("line", class_="reference", **ends) + words

    def curve(self, index: int, points: Sequence[tuple[float, float]]) -> Iterator[str]:
        """A line; its points too where they are few."""
        places = [self.at(*point) for point in points]
        if len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            yield element("polyline", class_="curve", points=path, style=_line_style(index))
        for a, b in places if len(places) <= 12 else ():
            yield element("circle", cx=a, cy=b, r=2.5, style=f"fill:var(--c{index % _COLOURS})")


def _line_style(index: int) -> str:
    dash = _DASHES[index % len(_DASHES)]
    return f"stroke:var(--c{index % _COLOURS})" + (f";stroke-dasharray:{dash}" if dash else "")


def _key(names: Sequence[str]) -> list[tuple[Markup, str]]:
    """Which line is which."""
    items = []
    for index, name in enumerate(names):
        line = element("line", class_="curve", x1=0, y1=4, x2=26, y2=4, style=_line_style(index))
        items.append((Markup(element("svg", line, viewBox="0 0 26 8", aria_hidden="true")), name))
    return items


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """A few round numbers from `low` to `high`."""
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _in_words(points: Sequence[tuple[float, float]]) -> str:
    """A line in words, for those who do not see it."""
    if not points:
        return "no numbers"
    (_, first), (_, last) = points[0], points[-1]
    return f"{first:.4g}" if len(points) == 1 else f"from {first:.4g} to {last:.4g}"

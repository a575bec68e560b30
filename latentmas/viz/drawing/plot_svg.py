"""Plots of scores as SVG: lines have dashes and signs of their own, cells their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from latentmas.viz.drawing.svg import element, escape_text
from latentmas.viz.plots import HeatMap, LinePlot, Measured

__all__ = ["heat_map_svg", "line_plot_svg"]

_STYLE = """\
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.ink{fill:var(--ink)}.mute{fill:var(--mute)}.small{font-size:10.5px}
.title{font-size:14px;font-weight:600}
.axis{stroke:var(--line);stroke-width:1}
.curve{fill:none;stroke-width:1.8}.bar{stroke-width:1.2}"""
_COLOURS = (
    ":root,svg{--ink:#1b1f24;--mute:#57606a;--line:#d0d7de;--paper:#ffffff;--c0:#0072b2;"
    "--c1:#d55e00;--c2:#009e73;--c3:#aa4499;--c4:#b07c00;--c5:#3a8fbf}"
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "12 4")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560.0, 320.0, 52.0, 16.0, 30.0, 44.0
_LINE = 17.0
"""Height of a line of the key."""
_CELL, _CELL_HEIGHT = 92.0, 48.0


def line_plot_svg(plot: LinePlot, *, inline: bool = False) -> str:
    """A line plot.

    Args:
        plot: What it shows.
        inline: For a place in a page, which has the colours.
    """
    several = len(plot.lines) > 1
    height = _HEIGHT + (_LINE * len(plot.lines) + 6 if several else 0)
    parts = [_text(plot.title, _LEFT, 16, "ink title"), *_axes(plot)]
    for number, line in enumerate(plot.lines.values()):
        parts += _line(plot, number, line)
    if several:
        parts += _key(plot)
    words = "; ".join(f"{name}: {_in_words(line)}" for name, line in plot.lines.items())
    return _picture(parts, _WIDTH, height, f"{plot.title}. {words}", inline)


def heat_map_svg(plot: HeatMap, *, inline: bool = False) -> str:
    """A heat map; arguments as `line_plot_svg`."""
    left = 34.0 + 7.2 * max(map(len, plot.rows))
    wide = max(_CELL, 7.2 * max(map(len, plot.columns)) + 12)
    top, across = 74.0, wide * len(plot.columns)
    height = top + _CELL_HEIGHT * len(plot.rows) + 30
    width = max(left + across + 14, 7.8 * len(plot.title) + 24)
    parts = [_text(plot.title, 12, 18, "ink title")]
    parts.append(_text(plot.column, left + across / 2, 44, "mute", anchor="middle"))
    for place, name in enumerate(plot.columns):
        parts.append(_text(name, left + wide * (place + 0.5), 64, "ink", anchor="middle"))
    middle = top + _CELL_HEIGHT * len(plot.rows) / 2
    turned = f"translate(18 {middle:.0f}) rotate(-90)"
    parts.append(
        element(
            "text", escape_text(plot.row), class_="mute", transform=turned, text_anchor="middle"
        )
    )
    for place, (name, cells) in enumerate(zip(plot.rows, plot.cells, strict=True)):
        y = top + _CELL_HEIGHT * place
        parts.append(_text(name, left - 8, y + _CELL_HEIGHT / 2 + 4, "ink", anchor="end"))
        for column, cell in enumerate(cells):
            parts += _cell(plot, cell, left + wide * column, y, wide)
    low, high = plot.range
    note = f"per cent with 95 % intervals; lightest {low:.1f}, darkest {high:.1f}"
    parts.append(_text(note, left, height - 10, "mute small"))
    width = max(width, left + 5.8 * len(note))
    return _picture(parts, width, height, f"{plot.title}. {_table_in_words(plot)}", inline)


def _cell(plot: HeatMap, cell: Measured | None, x: float, y: float, wide: float) -> Iterator[str]:
    place: dict[str, str | float] = {
        "x": x + 1,
        "y": y + 1,
        "width": wide - 2,
        "height": _CELL_HEIGHT - 2,
        "rx": 3,
    }
    if cell is None:
        dashed = "fill:none;stroke:var(--mute);stroke-dasharray:3 3"
        yield element("rect", **place, style=dashed)
        yield _text("–", x + wide / 2, y + 28, "mute", anchor="middle")
        return
    ground, ink = plot.ground(cell.value)
    yield element("rect", **place, style=f"fill:{ground};stroke:var(--line)")
    words: dict[str, str | float] = {"x": x + wide / 2, "text_anchor": "middle"}
    bold = f"fill:{ink};font-weight:600"
    yield element("text", f"{cell.value:.1f}", **words, y=y + 22, style=bold)
    span = f"{cell.low:.1f} to {cell.high:.1f}"
    yield element("text", span, **words, y=y + 38, class_="small", style=f"fill:{ink}")


def _at(plot: LinePlot, x: float, y: float) -> tuple[float, float]:
    """A point in the picture; some room is left beside the first and the last number."""
    low, high, _ = plot.bounds()
    room = _WIDTH - _LEFT - _RIGHT - 48
    up = (y - low) / (high - low)
    return (
        _LEFT + 24 + room * plot.position(x),
        _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
    )


def _axes(plot: LinePlot) -> Iterator[str]:
    low, high, step = plot.bounds()
    tick = low
    while tick <= high + 1e-9:
        _, y = _at(plot, plot.ticks[0], tick)
        yield element("line", class_="axis", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)
        yield _text(f"{tick:g}", _LEFT - 6, y + 4, "mute", anchor="end")
        tick += step
    for value in plot.ticks:
        x, y = _at(plot, value, low)
        yield element("line", class_="axis", x1=x, x2=x, y1=y, y2=y + 4)
        yield _text(f"{value:g}", x, y + 18, "mute", anchor="middle")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield _text(plot.x, middle, _HEIGHT - 8, "ink", anchor="middle")
    turned = f"translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)"
    yield element("text", "score, per cent", class_="ink", transform=turned, text_anchor="middle")


def _line(plot: LinePlot, number: int, points: Mapping[float, Measured]) -> Iterator[str]:
    """A line with the intervals of its points, beside those of other lines."""
    aside = (number - (len(plot.lines) - 1) / 2) * 5
    placed = []
    for value in sorted(points):
        x, y = _at(plot, value, points[value].value)
        placed.append((x + aside, y))
        ends = [_at(plot, value, end)[1] for end in (points[value].low, points[value].high)]
        yield _bar(x + aside, ends[0], ends[1], number)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    if len(placed) > 1:
        yield element("polyline", class_="curve", points=path, style=_stroke(number))
    for x, y in placed:
        yield _sign(x, y, number)


def _bar(x: float, low: float, high: float, number: int) -> str:
    path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
    return element("path", d=path, class_="bar", style=f"stroke:var(--c{number % 6});fill:none")


def _sign(x: float, y: float, number: int) -> str:
    """The sign of a line: circle, square, triangle, diamond, cross, open circle."""
    shapes = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        "m-3.6-3.6h7.2v7.2h-7.2z",
        "m0-4.6l4.4 7.8h-8.8z",
        "m0-5l5 5l-5 5l-5-5z",
        "m-4-4l8 8m0-8l-8 8",
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    )
    colour = f"var(--c{number % 6})"
    fill = "var(--paper)" if number % 6 == 5 else colour
    style = f"stroke:{colour};stroke-width:1.6;fill:{fill}"
    return element("path", d=f"M{x:.1f} {y:.1f}{shapes[number % 6]}", style=style)


def _stroke(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f"stroke:var(--c{number % 6})" + (f";stroke-dasharray:{dash}" if dash else "")


def _key(plot: LinePlot) -> Iterator[str]:
    for number, name in enumerate(plot.lines):
        y = _HEIGHT + 6 + _LINE * number
        ends = {"x1": _LEFT, "x2": _LEFT + 34, "y1": y, "y2": y}
        yield element("line", class_="curve", **ends, style=_stroke(number))
        yield _sign(_LEFT + 17, y, number)
        yield _text(name, _LEFT + 42, y + 4, "ink")


def _text(text: str, x: float, y: float, kind: str, anchor: str = "start") -> str:
    return element("text", escape_text(text), class_=kind, x=x, y=y, text_anchor=anchor)


def _picture(parts: list[str], width: float, height: float, title: str, inline: bool) -> str:
    paper = element("rect", width=width, height=height, style="fill:var(--paper)")
    style = element("style", _STYLE if inline else f"{_COLOURS}\n{_STYLE}")
    words = element("title", escape_text(title))
    space = {} if inline else {"xmlns": "http://www.w3.org/2000/svg"}
    return element(
        "svg",
        "\n".join(["", words, style, paper, *parts, ""]),
        **space,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=round(width),
        height=round(height),
        role="img",
    )


def _in_words(line: Mapping[float, Measured]) -> str:
    return ", ".join(f"{point.value:.1f} at {value:g}" for value, point in sorted(line.items()))


def _table_in_words(plot: HeatMap) -> str:
    told = []
    for name, cells in zip(plot.rows, plot.cells, strict=True):
        for column, cell in zip(plot.columns, cells, strict=True):
            value = "not measured" if cell is None else f"{cell.value:.1f}"
            told.append(f"{plot.row} {name}, {plot.column} {column}: {value}")
    return "; ".join(told)

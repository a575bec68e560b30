"""Plots of scores as PNG, painted by matplotlib (the extra `viz`)."""

from __future__ import annotations

from typing import Any

from latentmas.viz.drawing.png import COLOURS, new_figure, png_of
from latentmas.viz.plots import HeatMap, LinePlot

__all__ = ["heat_map_png", "line_plot_png"]

_DASHES: tuple[Any, ...] = (
    *("solid", "dashed", "dotted", "dashdot"),
    *((0, (5, 2, 1, 2, 1, 2)), (0, (8, 3))),
)
_SIGNS = ("o", "s", "^", "D", "x", "o")
_ASIDE = 0.009
"""Distance of two lines at one number, as a share of the width."""


def line_plot_png(plot: LinePlot) -> bytes:
    """A line plot.

    Args:
        plot: What it shows.

    Raises:
        LatentMASError: matplotlib is not installed.
    """
    several = len(plot.lines) > 1
    figure = new_figure(560, 320 + (17 * len(plot.lines) if several else 0), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, line) in enumerate(plot.lines.items()):
        points = [line[value] for value in sorted(line)]
        aside = (number - (len(plot.lines) - 1) / 2) * _ASIDE
        errors = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
        colour, open_sign = COLOURS[number % 6], number % 6 == 5
        axes.errorbar(
            [plot.position(value) + aside for value in sorted(line)],
            [p.value for p in points],
            yerr=errors,
            color=colour,
            linestyle=_DASHES[number % 6],
            marker=_SIGNS[number % 6],
            markersize=5,
            markerfacecolor="white" if open_sign else colour,
            capsize=3,
            elinewidth=1,
            label=name,
        )
    low, high, step = plot.bounds()
    axes.set_ylim(low, high)
    axes.set_yticks([low + step * n for n in range(round((high - low) / step) + 1)])
    axes.set_xlim(-0.06, 1.06)
    axes.set_xticks([plot.position(v) for v in plot.ticks], [f"{v:g}" for v in plot.ticks])
    axes.set_xlabel(plot.x, parse_math=False)
    axes.set_ylabel("score, per cent")
    axes.set_title(plot.title, parse_math=False, loc="left", fontweight="bold", fontsize=11)
    axes.grid(axis="y", alpha=0.4)
    if several:
        legend = figure.legend(loc="outside lower left", fontsize=9, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return png_of(figure)


def heat_map_png(plot: HeatMap) -> bytes:
    """A heat map; arguments and errors as `line_plot_png`."""
    from matplotlib.patches import Rectangle

    wide = max(92.0, 7.2 * max(map(len, plot.columns)) + 12)
    width = 60 + 7.2 * max(map(len, plot.rows)) + wide * len(plot.columns)
    width = max(width, 7.8 * len(plot.title) + 24, 360.0)
    figure = new_figure(width, 120 + 48 * len(plot.rows), layout="constrained")
    axes = figure.add_subplot()
    for y, cells in enumerate(plot.cells):
        for x, cell in enumerate(cells):
            if cell is None:
                look: dict[str, Any] = {"facecolor": "none", "edgecolor": "#57606a"}
                axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, linestyle="--", **look))
                axes.text(x, y, "–", ha="center", va="center", color="#57606a")
                continue
            ground, ink = plot.ground(cell.value)
            look = {"facecolor": ground, "edgecolor": "#d0d7de"}
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **look))
            centre: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            axes.text(x, y - 0.16, f"{cell.value:.1f}", fontweight="bold", fontsize=10, **centre)
            axes.text(x, y + 0.22, f"{cell.low:.1f} to {cell.high:.1f}", fontsize=8, **centre)
    axes.set_xlim(-0.5, len(plot.columns) - 0.5)
    axes.set_ylim(len(plot.rows) - 0.5, -0.5)
    axes.set_xticks(range(len(plot.columns)), plot.columns, parse_math=False)
    axes.set_yticks(range(len(plot.rows)), plot.rows, parse_math=False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel(plot.column, parse_math=False)
    axes.set_ylabel(plot.row, parse_math=False)
    axes.spines[:].set_visible(False)
    low, high = plot.range
    note = f"per cent with 95 % intervals; lightest {low:.1f}, darkest {high:.1f}"
    figure.suptitle(plot.title, x=0.02, ha="left", fontweight="bold", fontsize=11, parse_math=False)
    figure.supxlabel(note, fontsize=8, color="#57606a")
    return png_of(figure)

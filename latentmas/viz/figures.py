"""Curves as PNG, painted by matplotlib (the extra `viz`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentmas.viz.charts import FAR
from latentmas.viz.png import new_figure, png_of

__all__ = ["curves_png"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b07c00", "#3a8fbf")
_DASHES = ("solid", "dashed", "dotted", "dashdot")


def curves_png(
    title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, log: bool = False
) -> bytes:
    """Lines over the steps of a training.

    Raises:
        LatentMASError: matplotlib is not installed.
    """
    figure = new_figure(460, 280, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, points) in enumerate(lines.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_DASHES[index % len(_DASHES)],
            marker="o" if len(points) <= 12 else "",
            markersize=3,
            label=name,
        )
    heights = [y for points in lines.values() for _, y in points]
    if log and 0 < min(heights) * FAR < max(heights):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        legend = axes.legend(fontsize="x-small", loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)
    return png_of(figure)

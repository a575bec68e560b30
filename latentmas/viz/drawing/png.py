"""Plans and curves as PNG pictures, painted by matplotlib (the extra `viz`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentmas.errors import LatentMASError
from latentmas.plan import Plan
from latentmas.viz.charts import LOG_RATIO
from latentmas.viz.drawing.compose import compose
from latentmas.viz.drawing.labels import backbone_colours
from latentmas.viz.drawing.scene import Line, Rect, Text

__all__ = ["COLOURS", "curves_png", "new_figure", "png_of", "to_png"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALE, MAX_PIXELS = 2.0, 20_000
_INK, _MUTE, _PAPER = "#1b1f24", "#57606a", "#ffffff"
_DASHES: dict[str, Any] = {
    "edge": "solid",
    "edge text": (0, (0.4, 2.2)),
    "edge feedback": (0, (5.0, 3.0)),
    "edge text feedback": (0, (4.0, 2.2, 0.4, 2.2)),
}


def to_png(plan: Plan) -> bytes:
    """The drawing of `to_svg` in its light form, at two pixels a unit.

    Raises:
        LatentMASError: matplotlib is not installed.
    """
    scene = compose(plan)
    figure = new_figure(scene.width, scene.height)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.set_axis_off()
    for order, part in enumerate(scene.flat()):
        if isinstance(part, Rect):
            _rect(axes, part, order)
        elif isinstance(part, Line):
            _line(axes, part, order)
        else:
            _text(axes, part, order)
    return png_of(figure, scale=min(SCALE, MAX_PIXELS / max(scene.width, scene.height)))


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of so many units, a 72nd of an inch each.

    Raises:
        LatentMASError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LatentMASError(
            "PNG pictures need matplotlib; install it with: pip install 'latentmas[viz]' (.svg and "
            ".html need nothing)"
        ) from error
    return Figure(figsize=(width / 72, height / 72), **options)


def png_of(figure: Figure, *, scale: float = SCALE) -> bytes:
    """A figure as PNG; a character that the font lacks becomes a box without a warning."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=72 * scale, facecolor=_PAPER, bbox_inches=None)
    return file.getvalue()


def _rect(axes: Any, part: Rect, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, ink, width = _rect_style(part.style)
    corners = f"round,pad=0,rounding_size={part.radius}" if part.radius else "square,pad=0"
    axes.add_patch(
        FancyBboxPatch(
            (part.x, part.y),
            part.width,
            part.height,
            boxstyle=corners,
            facecolor=fill,
            edgecolor=ink,
            linewidth=width,
            zorder=order,
        )
    )


def _rect_style(style: str) -> tuple[str, str, float]:
    """Fill, border and width of a rectangle."""
    kinds = style.split()
    if "box" in kinds:
        index = next(int(kind[1:]) for kind in kinds if kind[1:].isdigit())
        return *backbone_colours(index), 4.0 if "output" in kinds else 1.5
    known = {"paper": (_PAPER, "none", 0.0), "source": ("#f3f4f6", "#8b949e", 1.0)}
    return known.get(style, ("none", _MUTE, 3.0))


def _line(axes: Any, part: Line, order: int) -> None:
    from matplotlib.patches import FancyArrowPatch, PathPatch
    from matplotlib.path import Path

    codes = {"M": [Path.MOVETO], "L": [Path.LINETO], "C": [Path.CURVE4] * 3, "Q": [Path.CURVE3] * 2}
    points = [
        (numbers[i], numbers[i + 1]) for _, numbers in part.path for i in range(0, len(numbers), 2)
    ]
    path = Path(points, [code for command, _ in part.path for code in codes[command]])
    look: dict[str, Any] = {
        "linestyle": _DASHES[part.style],
        "linewidth": 2.2 if "text" in part.style else 1.6,
        "capstyle": "round" if "text" in part.style else "butt",
    }
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=_MUTE, zorder=order, **look))
    if part.arrow:
        (x, y), (to_x, to_y) = points[-2:]
        away = max(abs(to_x - x), abs(to_y - y), 1e-6)
        tail = (to_x - (to_x - x) / away * 8, to_y - (to_y - y) / away * 8)
        axes.add_patch(
            FancyArrowPatch(
                tail,
                (to_x, to_y),
                arrowstyle="-|>,head_length=0.7,head_width=0.35",
                mutation_scale=10,
                shrinkA=0,
                shrinkB=0,
                color=_MUTE,
                linewidth=0.5,
                zorder=order,
            )
        )


def _text(axes: Any, part: Text, order: int) -> None:
    kind = part.style.split()[0]
    axes.text(
        part.x,
        part.y,
        "".join(c if c.isprintable() else "\ufffd" for c in part.text),
        fontsize={"title": 17, "name": 14}.get(kind, 11),
        fontweight="bold" if kind in ("title", "name") else "normal",
        color=_MUTE if "mute" in part.style else _INK,
        horizontalalignment="center" if kind in ("name", "note", "label") else "left",
        verticalalignment="baseline",
        parse_math=False,
        family=["DejaVu Sans"],
        zorder=order,
    )


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b07c00", "#3a8fbf")
_CURVE_DASHES = ("solid", "dashed", "dotted", "dashdot")


def curves_png(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = False,
    x: str = "step",
    y: str = "",
) -> bytes:
    """Lines over the steps of a training, or over something else.

    Raises:
        LatentMASError: matplotlib is not installed.
    """
    figure = new_figure(460, 280, layout="constrained")
    from matplotlib.ticker import MaxNLocator  # there, since the figure was made

    axes = figure.add_subplot()
    for index, (name, points) in enumerate(lines.items()):
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            color=COLOURS[index % len(COLOURS)],
            linestyle=_CURVE_DASHES[index % len(_CURVE_DASHES)],
            marker="o" if len(points) <= 12 else "",
            markersize=3,
            label=name,
        )
    heights = [height for points in lines.values() for _, height in points]
    if log and 0 < min(heights) * LOG_RATIO < max(heights):
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        legend = axes.legend(fontsize="x-small", loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)
    return png_of(figure)

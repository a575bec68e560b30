"""The real demo's picture: accuracy by system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["draw_bars"]


def draw_bars(
    labels: Mapping[str, str],
    accuracy: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    path: Path,
    note: Callable[[str], None],
) -> None:
    """Accuracy by system, with intervals, as a PNG; the latent team's bars are blue.

    Args:
        labels: Label of each system, in the order of the bars.
        accuracy: Accuracy by name, 0 to 1; systems without one are left out.
        intervals: Low and high bound by name.
        path: File to write.
        note: Called with a message if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("no picture: matplotlib is not installed (pip install 'latentmas[viz]')")
        return
    names = [name for name in labels if name in accuracy]
    values = [accuracy[name] for name in names]
    spread = [
        [value - intervals[name][0] for name, value in zip(names, values, strict=True)],
        [intervals[name][1] - value for name, value in zip(names, values, strict=True)],
    ]
    colours = ["#0072B2" if name in ("untrained", "trained") else "0.65" for name in names]
    figure = Figure(figsize=(7.5, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = [labels[name].strip() for name in names]
    axes.barh(shown, values, xerr=spread, color=colours, ecolor="0.25", capsize=3)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy on held-out questions", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)

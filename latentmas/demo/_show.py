"""Output of the demos while they run: a growing table, and a figure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import latentmas as lm
from latentmas.demo.task import ROUNDS

__all__ = ["Show"]

WIDTH = 36


class Show:
    """Prints the table to stdout (unless quiet) and notes to stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self.out = Console(file=sys.stdout, quiet=quiet, highlight=False)
        self.err = Console(file=sys.stderr, highlight=False)

    def title(self, plan: lm.Plan) -> None:
        """Print the plan's summary and the head of the table."""
        self.out.print(plan.summary(), markup=False, soft_wrap=True)
        self.out.print("\nAccuracy on held-out questions, by rounds run")
        heads = "".join(f"{f'r={r}':>8}" for r in range(1, ROUNDS + 1))
        self.out.print(f"{'':<{WIDTH}}{heads}")

    def row(self, name: str, values: Sequence[float | None]) -> None:
        """Print a row of the table; None leaves a cell empty."""
        cells = "".join(f"{'' if v is None else format(v, '.3f'):>8}" for v in values)
        self.out.print(f"{name:<{WIDTH}}{cells}")

    def note(self, text: str) -> None:
        """Print a line to stderr."""
        self.err.print(text, markup=False, soft_wrap=True)

    def figure(self, report: Mapping[str, Any], path: Path) -> None:
        """Plot accuracy against rounds by difficulty, as a PNG file."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            self.note("no figure: matplotlib is not installed (pip install 'latentmas[viz]')")
            return
        accuracy = report["accuracy"]
        figure = Figure(figsize=(7.5, 4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        rounds = range(1, ROUNDS + 1)
        styles = zip(("#0072B2", "#D55E00", "#009E73"), ("o", "s", "^"), strict=True)
        for (difficulty, values), (colour, marker) in zip(
            accuracy["trained_by_difficulty"].items(), styles, strict=True
        ):
            label = f"needs {difficulty} round{'s' if difficulty != '1' else ''}"
            axes.plot(rounds, values, color=colour, marker=marker, label=label)
        axes.plot(
            rounds, accuracy["inner"], color="0.5", linestyle="--", label="inner loop only, all"
        )
        axes.plot(rounds, accuracy["untrained"], color="0.5", linestyle=":", label="untrained, all")
        axes.axhline(report["chance"], color="0.7", linewidth=0.8)
        axes.annotate("chance", (ROUNDS, report["chance"]), va="bottom", ha="right", color="0.5")
        axes.set(xlabel="rounds run", ylabel="accuracy", xticks=list(rounds), ylim=(-0.02, 1.02))
        axes.set_title("Private pointer chasing: trained team, by difficulty")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
        figure.savefig(path)

    def end(self, report: Mapping[str, Any], folder: Path) -> None:
        """Print the totals and the location of the files."""
        self.out.print(
            f"\nchance {report['chance']:.3f}; {report['link_parameters']:,} link parameters; "
            f"trained in {report['training_seconds']} s, {report['seconds']} s in total"
        )
        self.note(
            "team, drawing (team.svg), pages (run.html, training.html), figure (accuracy.png), "
            f"results.json: {folder}/"
        )

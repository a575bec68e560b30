"""Rounds of training against rounds of running: a grid of accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from latentmas.atomic import write_atomically
from latentmas.errors import DataError
from latentmas.safe_data import parse_json, read_limited
from latentmas.viz.charts import heat_cell
from latentmas.viz.drawing.png import new_figure, png_of
from latentmas.viz.pages import Cell, Table, render_table

__all__ = ["DepthMap"]

LARGEST = 2**20
"""Bytes of a depth map's file."""

FILE = "depths.json"


@dataclass(frozen=True)
class DepthMap:
    """Accuracy by how a team was trained and how many rounds it runs.

    `training_report` shows a `depths.json` that it finds.
    """

    rounds: Sequence[int]
    """Rounds of running, the columns."""
    accuracy: Mapping[str, Sequence[float]]
    """A row for each training, by its name (`"trained at 2"`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", tuple(self.rounds))
        rows = {name: tuple(row) for name, row in self.accuracy.items()}
        object.__setattr__(self, "accuracy", rows)
        for name, row in self.accuracy.items():
            if len(row) != len(self.rounds):
                raise DataError(
                    f"row {name!r} has {len(row)} numbers for {len(self.rounds)} depths"
                )
        if not self.rounds or not self.accuracy:
            raise DataError("a depth map needs at least one depth and one row")

    def save(self, path: str | Path) -> Path:
        """Write the map, as `.json` (which `load` reads) or as a `.png` heat map.

        Raises:
            DataError: for another suffix.
            LatentMASError: `.png` without matplotlib (the extra `viz`).
        """
        path = Path(path)
        if path.suffix not in (".json", ".png"):
            raise DataError(f"cannot save {path.name!r}: the suffix must be .json or .png")
        return write_atomically(path, self._png() if path.suffix == ".png" else self._json())

    @classmethod
    def load(cls, path: str | Path) -> DepthMap:
        """Read what `save` wrote as JSON.

        Raises:
            DataError: the file cannot be read, or is not a depth map.
        """
        try:
            data: Any = parse_json(read_limited(Path(path), LARGEST))
            rows = {str(k): [float(v) for v in row] for k, row in data["accuracy"].items()}
            return cls([int(n) for n in data["rounds"]], rows)
        except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{str(path)!r} is not a depth map: {error}") from error

    def html(self) -> Markup:
        """A table whose cells are coloured by their numbers."""
        rows: list[list[Cell]] = [
            [name, *(heat_cell(value) for value in row)] for name, row in self.accuracy.items()
        ]
        columns = ("training", *(f"{n} round{'s' * (n != 1)}" for n in self.rounds))
        numbers = range(1, len(columns))
        return render_table(Table("Accuracy by rounds of running", columns, rows, numbers))

    def _json(self) -> str:
        rows = {name: list(row) for name, row in self.accuracy.items()}
        return json.dumps({"rounds": list(self.rounds), "accuracy": rows}, indent=2) + "\n"

    def _png(self) -> bytes:
        names, grid = list(self.accuracy), list(self.accuracy.values())
        height = 110 + 34 * len(names)
        figure = new_figure(250 + 60 * len(self.rounds), height, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(self.rounds)), [str(n) for n in self.rounds])
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_xlabel("rounds of running")
        for y, row in enumerate(grid):
            for x, value in enumerate(row):
                colour = "black" if value > 0.6 else "white"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour)
        figure.colorbar(image, label="accuracy")
        return png_of(figure)

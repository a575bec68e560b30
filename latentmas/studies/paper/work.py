"""`Work`: what a section of the report is run with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.backbones import fast_dtype
from latentmas.errors import DataError
from latentmas.io import digest_rows
from latentmas.io.storage.lock import locked
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.safe_data import read_json
from latentmas.spec import Backbone
from latentmas.studies.cells import Cell, CellResult, in_words, run_cell
from latentmas.studies.paper.presets import RANDOM, Preset, Sizes
from latentmas.studies.summary import StudyRow, summarise_cells

__all__ = ["Work"]

Row = Mapping[str, Any]
LARGEST = 2**26


@dataclass
class Work:
    """Sizes, models, data and folder of one section; whatever it finishes is kept."""

    section: str
    """Name of the section."""
    preset: Preset
    """The preset."""
    root: Path
    """Folder of the report."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Data files by name."""
    device: str = "cpu"
    """Device of all models."""
    progress: bool = True
    """Whether to print lines on stderr."""
    _held: list[System] = field(default_factory=list, repr=False)
    """The system that was loaded last, whose models the next one shares; one list for all
    sections."""

    @property
    def sizes(self) -> Sizes:
        """Sizes of the section."""
        return self.preset.sizes(self.section)

    @property
    def seeds(self) -> int:
        """Number of seeds of the section."""
        return self.preset.seeds_of(self.section)

    @property
    def folder(self) -> Path:
        """Folder of the section's cells."""
        return self.root / "cells" / self.section

    def beside(self, section: str) -> Work:
        """The work of another section, whose cells this one uses too."""
        return replace(self, section=section)

    @cached_property
    def _models(self) -> dict[str, Backbone]:
        kind = self.preset.dtype or fast_dtype(self.device)
        return {
            name: Backbone(self._source(source), dtype=kind)
            for name, source in self.preset.models.items()
        }

    def backbone(self, name: str) -> Backbone:
        """The declaration of a model: `"reader"` or `"answerer"`."""
        return self._models[name]

    def _source(self, source: str) -> str:
        if not source.startswith(RANDOM):
            return source
        from latentmas.testing import tiny_backbone

        family = source.removeprefix(RANDOM)
        place = self.root / "models" / family
        place.mkdir(parents=True, exist_ok=True)
        with locked(place):
            if not (place / "tokenizer.json").exists():  # written last
                tiny_backbone(family, 32, folder=place)
        return str(place)

    def load(self, plan: Plan, seed: int = 0) -> System:
        """A system for a plan, on models that are loaded already where they are equal."""
        last = self._held[0] if self._held else None
        self._held[:] = [plan.load(device=self.device, seed=seed, reuse=last)]
        return self._held[0]

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        if self.progress:
            print(f"  {self.section}: {text}", file=sys.stderr, flush=True)

    def cell(
        self,
        settings: Mapping[str, Any],
        plan: Plan,
        prepare: Callable[[Path], System],
        rows: Sequence[Row],
        *,
        depends_on: Mapping[str, Any] | None = None,
        grader: Any,
        **options: Any,
    ) -> CellResult:
        """Make and evaluate one system, unless that is done.

        Args:
            settings: What distinguishes it from the section's other systems.
            plan: Its plan.
            prepare: Makes and trains it, in a folder.
            rows: Questions.
            depends_on: What else it depends on, such as the digest of its training rows.
            grader: Grader of the answers.
            **options: Options of `run_cell` and `evaluate`.
        """
        needs = {"plan": plan.digest, "rows": digest_rows(rows), **(depends_on or {})}
        needs |= {name: repr(options[name]) for name in ("controls", "runs") if name in options}
        cell = Cell(settings, needs)
        found = run_cell(self.folder, cell, prepare, rows, grader=grader, **options)
        self.say(f"{in_words(settings)}: {scores_of(found)}")
        return found

    def once(self, name: str, needs: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Plain data that is made once and kept.

        Args:
            name: Name of its file.
            needs: What it depends on, as plain data.
            make: Makes it.

        Raises:
            DataError: the file is damaged.
        """
        path, told = self.folder / f"{name}.json", json.dumps(needs, sort_keys=True, default=str)
        if path.exists():
            try:
                found = read_json(path, LARGEST)
                if found["needs"] == told:
                    return found["content"]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{str(path)!r} is damaged ({error!r:.200}); delete it") from error
        content = make()
        text = json.dumps({"needs": told, "content": content}, indent=1, ensure_ascii=False)
        write_text_atomically(path, text + "\n")
        self.say(f"{name}: measured")
        return json.loads(text)["content"]

    def row(self, label: str, cells: Sequence[CellResult], evaluation: str = "") -> StudyRow:
        """Cells that differ in their seed alone, as a row of a table."""
        return summarise_cells({"system": label}, cells, evaluation)


def scores_of(cell: CellResult) -> str:
    """The scores of a cell in a few words."""
    parts = []
    for name, found in cell.evaluations.items():
        low, high = found["interval"]
        told = f"{100 * found['score']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        parts.append(f"{name} {told}".strip())
    return ", ".join(parts)

"""What a section of the report is, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from latentmas.errors import LatentMASError
from latentmas.registry import Registry
from latentmas.studies.paper.verdicts import Verdict
from latentmas.studies.paper.work import Work
from latentmas.studies.tabulate import Sheet
from latentmas.viz import HeatMap, LinePlot, Measured

__all__ = ["ORDER", "Outcome", "Section", "Skipped", "in_order", "sections"]

ORDER = ("relay", "gsm8k", "links", "steps", "rounds", "costs", "analyses")
"""Built-in sections in the order in which they run; others come after them."""


class Skipped(Exception):
    """A section cannot be run here, and why; the report says so."""


@dataclass(frozen=True)
class Outcome:
    """What came out of a section."""

    verdicts: Sequence[Verdict]
    """A verdict for each claim."""
    tables: Mapping[str, Sheet]
    """Caption → table."""
    n: int
    """Number of held-out questions."""
    seeds: int
    """Number of seeds of trainings."""
    plots: Sequence[LinePlot | HeatMap] = ()
    """Plots of scores."""
    notes: Sequence[str] = ()
    """Further sentences."""
    errors: Sequence[str] = ()
    """What could not be run, and why; the next run tries it again."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "verdicts": [one.to_dict() for one in self.verdicts],
            "tables": {caption: asdict(sheet) for caption, sheet in self.tables.items()},
            "n": self.n,
            "seeds": self.seeds,
            "plots": [{"kind": type(plot).__name__, **asdict(plot)} for plot in self.plots],
            "notes": list(self.notes),
            "errors": list(self.errors),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Outcome:
        """Read what `to_dict` returned."""
        return cls(
            verdicts=[Verdict(**one) for one in plain["verdicts"]],
            tables={caption: _sheet(one) for caption, one in plain["tables"].items()},
            n=plain["n"],
            seeds=plain["seeds"],
            plots=[_plot(one) for one in plain["plots"]],
            notes=plain["notes"],
            errors=plain["errors"],
        )


class Section(ABC):
    """A part of the report, as an entry of the registry `sections`; never instantiated."""

    title: ClassVar[str]
    """Heading."""
    claim: ClassVar[str]
    """What the paper says, with its figures."""
    task: ClassVar[str]
    """What is run here."""
    data: ClassVar[tuple[str, ...]] = ()
    """Names of the data files that it reads."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Sections whose trained teams it uses too."""
    models: ClassVar[tuple[str, ...]] = ("reader", "answerer")
    """Names of the models that it runs."""

    @staticmethod
    @abstractmethod
    def run(work: Work) -> Outcome:
        """Run what is missing of the section, and compare.

        Args:
            work: Sizes, models, data and folder.

        Raises:
            Skipped: it cannot be run here.
        """


sections: Registry[type[Section]] = Registry("section", "latentmas.studies.paper.sections")
"""Sections of the report by name."""


def in_order(only: Sequence[str] | None = None) -> dict[str, type[Section]]:
    """Sections by name, in the order in which they run.

    Args:
        only: Names; None: all.

    Raises:
        UnknownNameError: a section is unknown.
        LatentMASError: `only` is empty.
    """
    if only is not None and not only:
        raise LatentMASError(f"only is empty; name sections: {', '.join(sections.names())}")
    found = {name: sections.get(name) for name in (sections.names() if only is None else only)}
    places = {name: place for place, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0], len(ORDER))))


def _sheet(plain: Mapping[str, Any]) -> Sheet:
    rows = [tuple(row) for row in plain["rows"]]
    return Sheet(tuple(plain["head"]), rows, tuple(plain["notes"]), plain["words"])


def _plot(plain: Mapping[str, Any]) -> LinePlot | HeatMap:
    own = {name: value for name, value in plain.items() if name != "kind"}
    if plain["kind"] == "LinePlot":
        lines = {
            name: {float(x): Measured(**point) for x, point in line.items()}
            for name, line in own.pop("lines").items()
        }
        return LinePlot(**own, lines=lines)
    cells = [[one and Measured(**one) for one in row] for row in own.pop("cells")]
    own["range"] = tuple(own["range"])
    return HeatMap(**own, cells=cells)

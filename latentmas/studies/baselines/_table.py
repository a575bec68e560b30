"""What came out: the team and a baseline side by side, with what each has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Any

from latentmas.evaluation import Difference, mean_interval, paired_difference
from latentmas.studies.baselines._base import Effort
from latentmas.studies.cells import CellResult
from latentmas.studies.tabulate import Sheet

__all__ = ["BaselineReport", "SystemReport"]

HEAD = (
    *("system", "trained", "share", "steps", "rows seen", "tokens seen"),
    *("score", "95 % interval", "team less system", "tokens", "seconds"),
)


@dataclass(frozen=True)
class SystemReport:
    """One system: its training and its score, as means over its seeds."""

    name: str
    """Name of the system."""
    effort: Effort
    """What its training took, for each seed."""
    score: float
    """Mean score, 0 to 1."""
    interval: tuple[float, float]
    """95 % confidence interval of the score, from the rows."""
    row_scores: tuple[float, ...] = field(repr=False)
    """Score of each row, the mean over seeds."""
    seed_scores: tuple[float, ...]
    """Score of each seed."""
    new_tokens: float
    """Number of generated tokens over all rows and agents."""
    seconds: float
    """Seconds of generation over all rows."""
    difference: Difference | None
    """Score of the team minus that of the system; None for the team itself, and without one."""
    facts: Mapping[str, Any] = field(repr=False)
    """Further facts: the rank of an adapter, a prompt that was found."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the scores of rows."""
        names = ("name", "score", "new_tokens", "seconds")
        told: dict[str, Any] = {name: getattr(self, name) for name in names}
        told |= {"interval": list(self.interval), "seed_scores": list(self.seed_scores)}
        told |= {"effort": self.effort.to_dict(), "facts": dict(self.facts)}
        if self.difference is not None:
            told["difference"] = self.difference.to_dict()
        return told


@dataclass(frozen=True)
class BaselineReport:
    """The team and a baseline on the same rows; `print` shows a table."""

    systems: dict[str, SystemReport]
    """Reports by name of the system; the team's first, as `"team"`."""
    cells: dict[str, list[CellResult]] = field(repr=False)
    """Finished cells by name of the system, one for each seed."""
    grader: str
    """Name of the grader."""
    rows: int
    """Number of rows."""

    @classmethod
    def of(
        cls, cells: Mapping[str, Sequence[CellResult]], clusters: Sequence[str]
    ) -> BaselineReport:
        """The report of finished cells.

        Args:
            cells: Cells by name of the system, one for each seed, the team's first.
            clusters: Digest of each row's sample: copies of one question count as one.
        """
        systems: dict[str, SystemReport] = {}
        for name, own in cells.items():
            team = systems.get("team")
            systems[name] = _report(name, own, clusters, team)
        first = next(iter(cells.values()))[0].evaluation()
        lists = {name: list(own) for name, own in cells.items()}
        return cls(systems, lists, str(first["grader"]), int(first["rows"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        systems = {name: one.to_dict() for name, one in self.systems.items()}
        return {"grader": self.grader, "rows": self.rows, "systems": systems}

    def __str__(self) -> str:
        return f"{self.grader}, {self.rows} rows\n{self.sheet().plain()}"

    def sheet(self) -> Sheet:
        """The table as text, with notes on seeds and on what was found."""
        rows = list(map(_cells, self.systems.values()))
        return Sheet(HEAD, rows, self._notes()).without_empty()

    def write(self, path: str | Path) -> Path:
        """Write the table in the format of the file's suffix: .md, .tex, .json or .txt.

        Raises:
            DataError: the suffix is none of these, or the file cannot be written.
        """
        return self.sheet().write(path, self.to_dict(), more={".txt": f"{self}\n"})

    def _notes(self) -> list[str]:
        notes = []
        for name, one in self.systems.items():
            if len(one.seed_scores) > 1:
                low, high = min(one.seed_scores), max(one.seed_scores)
                notes.append(
                    f"{name}: mean of {len(one.seed_scores)} seeds, "
                    f"{100 * low:.1f} to {100 * high:.1f}"
                )
            told = ", ".join(f"{key} {value}" for key, value in one.facts.items())
            if told:
                notes.append(f"{name}: {told}")
        return notes


def _report(
    name: str, cells: Sequence[CellResult], clusters: Sequence[str], team: SystemReport | None
) -> SystemReport:
    found = [cell.evaluation() for cell in cells]
    count = len(found)
    by_row = zip(*(one["row_scores"] for one in found), strict=True)
    scores = tuple(fsum(own) / count for own in by_row)
    facts = dict(cells[0].facts)
    effort = Effort(**facts.pop("effort"))
    difference = (
        None if team is None else paired_difference(team.row_scores, scores, clusters=clusters)
    )
    return SystemReport(
        name=name,
        effort=effort,
        score=fsum(scores) / len(scores),
        interval=mean_interval(scores, clusters),
        row_scores=scores,
        seed_scores=tuple(float(one["score"]) for one in found),
        new_tokens=fsum(one["new_tokens"] for one in found) / count,
        seconds=fsum(one["seconds"] for one in found) / count,
        difference=difference,
        facts=facts,
    )


def _cells(one: SystemReport) -> tuple[str, ...]:
    effort, (low, high) = one.effort, one.interval
    share = effort.trained_parameters / effort.parameters if effort.parameters else 0.0
    difference = ""
    if one.difference is not None:
        less, more = one.difference.interval
        mean = 100 * one.difference.mean
        difference = f"{mean:+.1f} ({100 * less:+.1f} to {100 * more:+.1f})"
    return (
        one.name,
        f"{effort.trained_parameters:,}",
        f"{100 * share:.2f} %",
        f"{effort.steps:,}",
        f"{effort.rows:,}",
        "?" if effort.tokens is None else f"{effort.tokens:,}",
        f"{100 * one.score:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        difference,
        f"{one.new_tokens:,.0f}",
        f"{one.seconds:.2f}",
    )

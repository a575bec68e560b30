"""`PaperReport`: what a report says, as data, as text and as a table of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.studies.paper._base import Outcome

__all__ = ["PaperInterrupted", "PaperReport", "PlannedSection", "in_time"]


class PaperInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a report; what it has done is kept.

    `folder`: the folder of the report. `left`: sections that are not finished.
    """

    def __init__(self, folder: Path, left: Sequence[str], resume: str) -> None:
        super().__init__(
            f"interrupted; unfinished sections: {', '.join(left)}. Whatever is finished is kept in "
            f"{str(folder)!r}; to continue:\n  {resume}"
        )
        self.folder, self.left = folder, list(left)


@dataclass(frozen=True)
class PaperReport:
    """A report, as far as it has come."""

    page: Path
    """The page."""
    outcomes: dict[str, Outcome]
    """Outcomes of the finished sections by name."""
    skipped: dict[str, str]
    """Sections that cannot be run here → why."""
    failed: dict[str, str]
    """Sections that failed → what went wrong."""
    seconds: float
    """Seconds of all sessions."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "page": str(self.page),
            "sections": {name: one.to_dict() for name, one in self.outcomes.items()},
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": self.seconds,
        }

    def markdown(self) -> str:
        """All verdicts as a table in Markdown."""
        lines = ["| section | claim | paper | here | verdict |", "|---|---|---|---|---|"]
        for name, outcome in self.outcomes.items():
            seeds = f"{outcome.seeds} seed{'s' * (outcome.seeds != 1)}"
            for one in outcome.verdicts:
                told = f"{one.evidence}; n = {outcome.n}, {seeds}"
                cells = (name, one.claim, one.paper or "our control", told, one.outcome)
                escaped = (cell.replace("|", "\\|") for cell in cells)
                lines.append(f"| {' | '.join(escaped)} |")
        problems = {**self.skipped, **self.failed}
        for name in problems:
            state = "skipped" if name in self.skipped else "failed"
            lines.append(f"| {name} | | | | {state} |")
        return "\n".join([*lines, ""])

    def __str__(self) -> str:
        lines = []
        for name, outcome in self.outcomes.items():
            lines += [f"{name}: {one.outcome}: {one.claim}" for one in outcome.verdicts]
        lines += [f"{name}: skipped: {why}" for name, why in self.skipped.items()]
        lines += [f"{name}: failed: {why}" for name, why in self.failed.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class PlannedSection:
    """A section before it runs."""

    name: str
    """Name."""
    title: str
    """Heading."""
    state: str
    """`"waiting"`, `"done"`, `"failed"` or `"skipped"`, in the folder of the report."""
    seeds: int
    """Number of seeds."""
    seconds: float
    """CPU seconds that it is expected to take on one core."""


def in_time(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

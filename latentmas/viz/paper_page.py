"""The report on the paper's claims as a page: verdicts first, then each section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from latentmas.atomic import write_text_atomically
from latentmas.viz.pages import Table, render
from latentmas.viz.plots import HeatMap, LinePlot

__all__ = ["PaperClaim", "PaperSection", "report_paper"]


@dataclass(frozen=True)
class PaperClaim:
    """A claim, as a page shows it."""

    claim: str
    """The claim, as a sentence."""
    paper: str
    """The paper's figure; empty for a control that the paper does not have."""
    evidence: str
    """What came out, with its interval."""
    outcome: str
    """The verdict in a few words."""


@dataclass(frozen=True)
class PaperSection:
    """A section of the report, as a page shows it."""

    name: str
    """Name, which is also its anchor."""
    title: str
    """Heading."""
    state: str
    """How far it has come, in a few words."""
    claim: str
    """What the paper says."""
    task: str
    """What was run."""
    problem: str
    """Why it was skipped or failed."""
    details: str
    """Long text, such as a traceback."""
    claims: Sequence[PaperClaim]
    """Verdicts."""
    tables: Sequence[tuple[Table, Sequence[str]]]
    """Tables, with the sentences below each."""
    plots: Sequence[HeatMap | LinePlot]
    """Plots."""
    notes: Sequence[str]
    """Further sentences."""
    facts: Sequence[str]
    """Numbers of questions and seeds, and time."""
    command: str
    """Command that repeats it."""

    @property
    def counted(self) -> str:
        """Verdicts in a few words: `2 reproduced, 1 not reproduced`."""
        counts = Counter(one.outcome for one in self.claims)
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def report_paper(
    path: Path,
    *,
    title: str,
    note: str,
    lead: Sequence[str],
    rule: str,
    sections: Sequence[PaperSection],
    facts: Sequence[Table],
) -> Path:
    """Write the page: one file that needs no network.

    Args:
        path: File to write.
        title: Heading.
        note: Warning at the top; may be empty.
        lead: Sentences below the heading.
        rule: Rule of the verdicts.
        sections: All sections, whether run or not.
        facts: Tables about the machine and the run.
    """
    text = render(
        "paper.html.jinja",
        title=title,
        note=note,
        lead=lead,
        rule=rule,
        sections=sections,
        drawn={
            one.name: [(plot.title, Markup(plot.svg(inline=True))) for plot in one.plots]
            for one in sections
        },
        facts=facts,
    )
    return write_text_atomically(path, text)

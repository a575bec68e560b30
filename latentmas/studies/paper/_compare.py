"""Systems side by side: scores with intervals, and paired differences from one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentmas.plan import Plan
from latentmas.studies.baselines import open_baseline
from latentmas.studies.cells import CellResult
from latentmas.studies.paper.verdicts import Verdict, judge
from latentmas.studies.summary import StudyRow, difference_of
from latentmas.studies.tabulate import Sheet

__all__ = ["Claim", "compared", "judged", "missing", "rank_note"]

HEAD = ("system", "weights trained", "seeds", "score", "95 % interval", "less", "tokens")
NOTE = (
    "Scores in per cent on {n} held-out questions: mean ± standard deviation over seeds, 95 % "
    "interval over questions. “less {first}”: the system's score minus that of {first}, paired by "
    "question. Tokens: generated per question, over all agents."
)
Claim = tuple[str, str, str, str, bool]
"""Sentence, the paper's figure, system, system that it is compared with, and whether the claim is
a control of our own."""


def compared(rows: Mapping[str, StudyRow], trained: Mapping[str, int] | None = None) -> Sheet:
    """A table of systems; differences are from the first.

    Args:
        rows: Label of a system → its scores.
        trained: Label → number of weights that were trained.
    """
    first, *_ = rows
    weights = trained or {}
    lines = []
    for label, row in rows.items():
        assert row.score is not None and row.interval is not None
        score = f"{100 * row.score:.1f}"
        if row.deviation is not None:
            score += f" ± {100 * row.deviation:.1f}"
        low, high = (100 * end for end in row.interval)
        pair = None if label == first else difference_of(row, rows[first])
        less = ""
        if pair is not None:
            ends = [f"{100 * end:+.1f}" for end in pair.interval]
            less = f"{100 * pair.mean:+.1f} ({ends[0]} to {ends[1]})"
        count = f"{weights.get(label, 0):,}"
        interval, seeds = f"{low:.1f} to {high:.1f}", str(len(row.scores))
        lines.append((label, count, seeds, score, interval, less, f"{row.new_tokens:.1f}"))
    head = tuple(f"less {first}" if name == "less" else name for name in HEAD)
    n = len(set(rows[first].questions))
    return Sheet(head, lines, (NOTE.format(n=n, first=first),))


def missing(name: str, plan: Plan) -> str:
    """Why a baseline cannot be made here, such as a package that is missing; empty if it can."""
    return "; ".join(open_baseline(name).problems(plan))


def rank_note(cell: CellResult) -> str:
    """A sentence on the LoRA adapter of a cell."""
    facts = cell.facts
    return (
        f"The LoRA adapter has rank {facts['rank']}, which makes it closest to the link in size, "
        "and is trained at the learning rate that is the default of adapters."
    )


def judged(rows: Mapping[str, StudyRow], claims: Sequence[Claim]) -> list[Verdict]:
    """Verdicts on claims that one system answers better than another.

    Args:
        rows: Label of a system → its scores.
        claims: The claims.
    """
    found = []
    for sentence, paper, one, other, control in claims:
        pair = difference_of(rows[one], rows[other]) if {one, other} <= rows.keys() else None
        found.append(
            judge(
                sentence,
                None if pair is None else pair.mean,
                None if pair is None else pair.interval,
                paper=paper,
                control=control,
                what=f"{one} less {other}",
            )
        )
    return found

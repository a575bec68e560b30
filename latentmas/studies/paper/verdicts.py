"""Verdicts on claims, by one rule from intervals of paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["RULE", "Verdict", "judge", "judge_range"]

REPRODUCED, REFUTED, LEVEL = "reproduced", "not reproduced", "no difference found"
HOLDS, FAILS = "holds", "does not hold"
UNMEASURED, UNDECIDED = "not measured", "undecided"
RULE = (
    "The rule is the same for every claim. A claim is “reproduced” only if the 95 % interval of "
    "the paired difference excludes 0 in the direction of the claim, “not reproduced” if it "
    "excludes 0 in the other direction, and otherwise “no difference found”. Seeds are averaged "
    "for each question first, so that the interval is over questions and not over trainings. "
    "Claims about a ratio (time, memory, gradients) are “reproduced” if the whole range over "
    "repeated runs, or the ratio of both intervals, is where the claim puts it, “not reproduced” "
    "if none of it is, and otherwise “undecided”. Controls of our own hold or do not hold by the "
    "same rule."
)


@dataclass(frozen=True)
class Verdict:
    """What became of one claim."""

    claim: str
    """The claim, as a sentence."""
    outcome: str
    """`"reproduced"`, `"not reproduced"`, `"no difference found"`, `"undecided"` or
    `"not measured"`; for a control, `"holds"` and `"does not hold"` in place of the first two."""
    evidence: str
    """What was compared, with its interval, or why there is nothing to compare."""
    paper: str = ""
    """The paper's figure; empty where the claim is a control of our own."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return dict(vars(self))


def judge(
    claim: str,
    mean: float | None,
    interval: tuple[float, float] | None,
    *,
    paper: str = "",
    direction: int = 1,
    control: bool = False,
    unit: str = "points",
    what: str = "",
) -> Verdict:
    """The verdict on a claim about a difference.

    Args:
        claim: The claim, as a sentence.
        mean: Paired difference; None if it could not be measured.
        interval: Its 95 % interval.
        paper: The paper's figure.
        direction: 1 if the claim is that the difference is above 0, -1 if below.
        control: Whether the claim is a control of our own and not the paper's.
        unit: Name of the unit; `"points"` shows hundredths.
        what: What was compared, or why it could not be.
    """
    if mean is None or interval is None:
        return Verdict(claim, UNMEASURED, what or "a system that it compares has no score", paper)
    low, high = interval
    scale, form = (100.0, "+.1f") if unit == "points" else (1.0, "+.3g")
    numbers = [format(scale * value, form) for value in (mean, low, high)]
    told = f"{numbers[0]} {unit} (95 % interval {numbers[1]} to {numbers[2]})"
    sign = int(low > 0) - int(high < 0)
    yes, no = (HOLDS, FAILS) if control else (REPRODUCED, REFUTED)
    outcome = LEVEL if sign == 0 else yes if sign == direction else no
    return Verdict(claim, outcome, f"{what}: {told}" if what else told, paper)


def judge_range(
    claim: str,
    low: float | None,
    high: float | None,
    bounds: tuple[float, float],
    *,
    paper: str = "",
    what: str = "",
) -> Verdict:
    """The verdict on a claim that a ratio lies within bounds.

    Args:
        claim: The claim, as a sentence.
        low: Lower end of the ratio's range; None if it could not be measured.
        high: Upper end.
        bounds: Where the ratio lies if the claim is true.
        paper: The paper's figure.
        what: What was compared, or why it could not be.
    """
    if low is None or high is None:
        return Verdict(claim, UNMEASURED, what or "the ratio could not be measured", paper)
    told = f"ratio {low:.2f} to {high:.2f}"
    least, most = bounds
    outcome = UNDECIDED
    if least <= low and high <= most:
        outcome = REPRODUCED
    elif high < least or low > most:
        outcome = REFUTED
    return Verdict(claim, outcome, f"{what}: {told}" if what else told, paper)

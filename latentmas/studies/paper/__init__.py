"""The paper's tables in small: sections that state a claim, run studies, and judge it by a rule.

A section is a file in `sections`, an entry point in the group `latentmas.studies.paper.sections`,
or a class registered with `sections.register`.
"""

from __future__ import annotations

from latentmas.studies.paper._base import Outcome, Section, Skipped, sections
from latentmas.studies.paper.presets import Preset, Sizes, open_preset
from latentmas.studies.paper.report import PaperInterrupted, PaperReport, PlannedSection
from latentmas.studies.paper.run import plan_paper, run_paper
from latentmas.studies.paper.verdicts import Verdict, judge, judge_range
from latentmas.studies.paper.work import Work

__all__ = [
    "Outcome",
    "PaperInterrupted",
    "PaperReport",
    "PlannedSection",
    "Preset",
    "Section",
    "Sizes",
    "Skipped",
    "Verdict",
    "Work",
    "judge",
    "judge_range",
    "open_preset",
    "plan_paper",
    "run_paper",
    "sections",
]

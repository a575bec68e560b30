"""`analyse`: run analyses over a team and write what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.arguments import whole
from latentmas.atomic import check_writable, write_text_atomically
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, LatentMASError
from latentmas.runtime import System, bad_samples, check_system
from latentmas.spec import field_problem
from latentmas.studies.analyses import analyses
from latentmas.studies.analyses._base import Finding, Material
from latentmas.viz import AnalysisSection, Table, report_analysis

__all__ = ["AnalysisReport", "analyse"]

FORMAT = 1
FEWEST = 2
FILE, TABLE, PAGE = "analysis.json", "analysis.md", "analysis.html"


@dataclass(frozen=True)
class AnalysisReport:
    """What analyses of a team found. Printing it shows their verdicts."""

    name: str
    """Name of the graph."""
    plan: str
    """Digest of the plan."""
    rounds: int
    """Number of rounds."""
    questions: int
    """Number of questions."""
    findings: Mapping[str, Finding]
    """Analysis → what it found."""
    versions: dict[str, Any] = field(default_factory=dict, repr=False)
    """Versions of the packages."""
    hardware: dict[str, Any] = field(default_factory=dict, repr=False)
    """The machine."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "name": self.name,
            "plan": self.plan,
            "rounds": self.rounds,
            "questions": self.questions,
            "findings": {
                name: {"verdict": list(one.verdict), **one.data}
                for name, one in self.findings.items()
            },
            "versions": self.versions,
            "hardware": self.hardware,
        }

    def __str__(self) -> str:
        return "\n\n".join([self._head(), *map(str, self.findings.values())])

    def write(self, folder: str | Path) -> Path:
        """Write JSON, a table in Markdown, charts as SVG and PNG, and a page of HTML.

        PNG files need matplotlib (the extra `viz`) and are left out without it.

        Args:
            folder: Folder to write to.

        Returns:
            The page.
        """
        folder = Path(folder)
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(folder / FILE, text)
        write_text_atomically(folder / TABLE, self._markdown())
        return report_analysis(
            folder / PAGE,
            title=f"Analysis: {self.name}",
            head=self._head(),
            sections=[_section(one) for one in self.findings.values()],
        )

    def _head(self) -> str:
        rounds = f"{self.rounds} round{'s' * (self.rounds != 1)}"
        return f"{self.name}, {rounds}, {self.questions} questions"

    def _markdown(self) -> str:
        parts = [f"# Analysis: {self.name}", self._head()]
        for finding in self.findings.values():
            parts += [f"## {finding.title}", "\n".join(f"- {line}" for line in finding.verdict)]
            for caption, sheet in finding.sheets.items():
                parts += [f"### {caption}", sheet.markdown().rstrip()]
        return "\n\n".join(parts) + "\n"


def analyse(
    system: System,
    rows: Sequence[Mapping[str, Any]],
    *,
    what: str | Sequence[str] | None = None,
    rounds: int | None = None,
    answer_field: str = "answer",
    batch_size: int = 8,
    seed: int = 0,
    output: str | Path | None = None,
) -> AnalysisReport:
    """Look at what a team's messages hold, by edge and round, each with a control.

    Args:
        system: the team.
        rows: samples with the inputs of the graph and the correct answer.
        what: names of analyses: `"distances"`, `"gradients"`, `"meaning"`, or further registered
            ones; None runs all.
        rounds: number of rounds; None takes the graph's.
        answer_field: name of the field with the correct answer.
        batch_size: number of questions that run together.
        seed: seed of random directions, resamples and permutations.
        output: folder to write to; see `AnalysisReport.write`.

    Raises:
        DataError: there are fewer than two rows, a row lacks an input or an answer, or the folder
            cannot be written.
        LatentMASError: the team sends no latent messages, or `what` is empty.
        UnknownNameError: an analysis is unknown.
    """
    check_system("system", system)
    names = analyses.names() if what is None else [what] if isinstance(what, str) else list(what)
    if not names:
        raise LatentMASError(f"what is empty; name analyses: {', '.join(analyses.names())}")
    wanted = {name: analyses.get(name) for name in names}
    if output is not None:
        check_writable(Path(output) / FILE)
    plan = system.plan if rounds is None else system.plan.replace(rounds=rounds)
    answers = _answers(rows, plan.graph.inputs, answer_field)
    material = Material(
        system=system,
        plan=plan,
        rows=[{name: row[name] for name in plan.graph.inputs} for row in rows],
        answers=answers,
        seed=seed,
        batch_size=whole("batch_size", batch_size),
    )
    report = AnalysisReport(
        name=plan.graph.name,
        plan=plan.digest,
        rounds=plan.graph.rounds,
        questions=len(rows),
        findings={name: kind.run(material) for name, kind in wanted.items()},
        versions=versions(),
        hardware=hardware(),
    )
    if output is not None:
        report.write(output)
    return report


def _answers(
    rows: Sequence[Mapping[str, Any]], inputs: Sequence[str], answer_field: str
) -> list[str]:
    """The correct answers.

    Raises:
        DataError: there are too few rows, or some lack a field.
    """
    if len(rows) < FEWEST:
        raise DataError(
            f"an analysis needs at least {FEWEST} rows, found {len(rows)}: controls use the "
            "answers of other rows"
        )
    errors: dict[int, LatentMASError] = {}
    for number, row in enumerate(rows):
        problems = (field_problem(f"sample {number}", row, f) for f in [*inputs, answer_field])
        problem = next((one for one in problems if one is not None), None)
        if problem is not None:
            errors[number] = DataError(problem)
    if errors:
        raise bad_samples(errors, len(rows))
    return [str(row[answer_field]) for row in rows]


def _section(finding: Finding) -> AnalysisSection:
    return AnalysisSection(
        name=finding.name,
        title=finding.title,
        verdict=finding.verdict,
        tables=[
            (
                Table(caption, sheet.head, sheet.rows, range(sheet.words, len(sheet.head))),
                sheet.notes,
            )
            for caption, sheet in finding.sheets.items()
        ],
        curves=finding.curves,
    )

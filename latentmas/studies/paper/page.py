"""The page of the report: one HTML file, from what `paper.json` holds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentmas.studies.paper._base import Outcome, Section, in_order
from latentmas.studies.paper.report import in_time
from latentmas.studies.paper.state import DONE, FAILED, RUNNING, SKIPPED, Record
from latentmas.studies.paper.verdicts import RULE, Verdict
from latentmas.viz import PaperClaim, PaperSection, Table, report_paper

__all__ = ["write_page"]

TITLE = "Recursive Multi-Agent Systems, claim by claim"
STATES = {DONE: "done", FAILED: "failed", SKIPPED: "skipped", RUNNING: "running now"}


def write_page(path: Path, record: Record, command: str) -> Path:
    """Write the page, with the sections that are not done yet marked.

    Args:
        path: File to write.
        record: State of the report.
        command: Command that made it.
    """
    shown = [_section(name, one, record, command) for name, one in in_order().items()]
    return report_paper(
        path,
        title=TITLE,
        note=record.preset["note"],
        lead=list(_lead(record)),
        rule=RULE,
        sections=shown,
        facts=_facts(record),
    )


def _lead(record: Record) -> Iterator[str]:
    """Sentences at the top: models, time and sessions."""
    models = record.preset["models"]
    same = len(set(models.values())) == 1
    told = (
        next(iter(models.values())) if same else ", ".join(f"{k}: {v}" for k, v in models.items())
    )
    kind = record.preset["dtype"]
    yield f"Preset {record.preset['name']}; model{'s' * (not same)} {told}, in {kind}."
    count = len(record.sessions)
    done = sum(one["state"] == DONE for one in record.sections.values())
    yield (
        f"{done} of {len(in_order())} sections done, in {in_time(record.seconds)} over {count} "
        f"session{'s' * (count != 1)}."
    )


def _section(name: str, kind: type[Section], record: Record, command: str) -> PaperSection:
    found = record.sections.get(name, {})
    outcome = Outcome.from_dict(found["outcome"]) if "outcome" in found else None
    told = found.get("reason") or found.get("error") or ""
    facts = []
    if outcome is not None:
        seeds = f"{outcome.seeds} seed{'s' * (outcome.seeds != 1)}"
        facts.append(f"{outcome.n} held-out questions, {seeds}, {in_time(found['seconds'])}")
    again = f"{command} --only {name} -o {shlex.quote(record.folder.name)}"
    return PaperSection(
        name=name,
        title=kind.title,
        state=STATES.get(found.get("state", ""), "not run yet"),
        claim=kind.claim,
        task=kind.task,
        problem=told,
        details=found.get("traceback", ""),
        claims=[] if outcome is None else [_claim(one) for one in outcome.verdicts],
        tables=[] if outcome is None else list(_tables(outcome)),
        plots=[] if outcome is None else list(outcome.plots),
        notes=[] if outcome is None else list(outcome.notes),
        facts=facts,
        command=again,
    )


def _claim(verdict: Verdict) -> PaperClaim:
    return PaperClaim(verdict.claim, verdict.paper, verdict.evidence, verdict.outcome)


def _tables(outcome: Outcome) -> Iterator[tuple[Table, list[str]]]:
    for caption, sheet in outcome.tables.items():
        numbers = range(sheet.words, len(sheet.head))
        yield Table(caption, sheet.head, sheet.rows, numbers), list(sheet.notes)


def _facts(record: Record) -> list[Table]:
    """Sessions, the machine and the preset in tables."""
    sessions = [
        (
            str(number),
            one["start"],
            one["end"],
            in_time(one["seconds"]),
            "" if one["finished"] else "stopped, or still running",
        )
        for number, one in enumerate(record.sessions, start=1)
    ]
    machine = record.machine
    hardware = [(key, str(value)) for key, value in machine.get("hardware", {}).items() if value]
    packages = [(key, str(value)) for key, value in machine.get("versions", {}).items() if value]
    return [
        Table("Sessions", ("", "start", "end", "time", ""), sessions),
        Table("Machine", ("", ""), [*hardware, ("device", str(machine.get("device", "")))]),
        Table("Versions", ("package", "version"), packages),
        Table("Sizes", ("section", "sizes"), list(_sizes(record.preset))),
    ]


def _sizes(preset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, own in preset["sections"].items():
        told = (
            f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in own.items()
            if value not in (None, [], ())
        )
        yield name, "; ".join(told)

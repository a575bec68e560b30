"""`Session`: one process at work on a report."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.redact import redact
from latentmas.studies.paper import state as states
from latentmas.studies.paper._base import Outcome, Section, Skipped, sections
from latentmas.studies.paper.page import write_page
from latentmas.studies.paper.report import PaperInterrupted, PaperReport, in_time
from latentmas.studies.paper.state import Record
from latentmas.studies.paper.work import Work

__all__ = ["Session"]

PAGE, TABLE = "index.html", "verdicts.md"
PAUSE = 2.0
"""Seconds between two looks at what other processes have done."""
VERSION = 1
"""Raised whenever sections measure something else, so that finished ones run again."""


@dataclass
class Session:
    """One process that runs sections, perhaps beside others that run the rest."""

    record: Record
    """State of the report."""
    work: Work
    """What sections are run with."""
    wanted: Mapping[str, type[Section]]
    """Sections to run, by name."""
    command: str
    """The command that made the report, for the page."""
    spent: float = 0.0
    """Seconds of the sections that this session has finished."""
    expected: float = 0.0
    """Seconds that they were expected to take."""
    left: list[str] = field(default_factory=list)
    """Sections that are to be run, here or by other processes."""
    waiting: list[str] = field(default_factory=list)
    """Sections that this session has said it waits for."""
    elsewhere: set[str] = field(default_factory=set)
    """Sections that other processes were seen to run."""

    def all(self) -> None:
        """Run what is missing; the page shows each section as soon as it is done."""
        self.left = [name for name in self.wanted if not self._is_done(name)]
        for name in self.wanted:
            if name not in self.left:
                self._say(f"{self._head(name)}: done before")
        if not self.left:
            self._write()
            return
        with self.record.session():
            self._write()
            while self.left:
                begun = self._begun()
                if begun is None:
                    self._wait()
                else:
                    self._one(begun)
                    self.left.remove(begun)
                    self._write()
        self._write()

    def _wait(self) -> None:
        """Wait a moment for other processes."""
        if self.left and self.left != self.waiting:
            self.waiting = list(self.left)
            self._say(f"waiting for {', '.join(self.waiting)}, which other processes run")
        time.sleep(PAUSE if self.left else 0.0)

    def _begun(self) -> str | None:
        """Begin a section that no other process runs; drop those that others have ended."""
        record = self.record
        with record.changing():
            for name in list(self.left):
                if record.runs(name) or not self._is_free(name):
                    self.elsewhere |= {name} if record.runs(name) else set()
                    continue
                if self._is_done(name) or (name in self.elsewhere and record.ended(name)):
                    state = record.sections[name]["state"]
                    self._say(f"{self._head(name)}: {state} in another process")
                    self.left.remove(name)
                    continue
                section = self.wanted[name]
                self._say(f"{self._head(name)}: {section.title}{self._time_left()}")
                record.begin(name, self._digest(name, section))
                return name
        return None

    def _is_free(self, name: str) -> bool:
        """Whether no section is being run that trains or uses the same teams."""
        own = _teams_of(name)
        return not any(own & _teams_of(other) for other in self.record.running)

    def _head(self, name: str) -> str:
        return f"[{list(self.wanted).index(name) + 1}/{len(self.wanted)}] {name}"

    def report(self) -> PaperReport:
        """The report, of all sections that have been run."""
        found = self.record.sections
        return PaperReport(
            page=self.record.folder / PAGE,
            outcomes={
                n: Outcome.from_dict(s["outcome"]) for n, s in found.items() if "outcome" in s
            },
            skipped={n: s["reason"] for n, s in found.items() if s["state"] == states.SKIPPED},
            failed={n: s["error"] for n, s in found.items() if s["state"] == states.FAILED},
            seconds=self.record.seconds,
        )

    def _one(self, name: str) -> None:
        began = time.perf_counter()
        try:
            outcome = self.wanted[name].run(self.work.beside(name))
        except Skipped as reason:
            self.record.end(name, states.SKIPPED, reason=redact(str(reason)))
            self._say(f"  {name}: skipped: {reason}")
            return
        except KeyboardInterrupt:
            self.record.end(name, states.WAITING)
            self._write()
            again = f"run_paper(…, folder={str(self.record.folder)!r})"
            raise PaperInterrupted(self.record.folder, self.left, again) from None
        except Exception as error:
            text = redact("".join(traceback.format_exception(error)))
            said = f"{type(error).__name__}: {redact(str(error))}"
            self.record.end(name, states.FAILED, error=said, traceback=text)
            self._say(f"  {name}: failed: {said}")
            return
        self.spent += time.perf_counter() - began
        self.expected += self.work.preset.sizes(name).seconds
        told: dict[str, Any] = {"outcome": outcome.to_dict()}
        if outcome.errors:
            self.record.end(name, states.FAILED, error="; ".join(outcome.errors), **told)
        else:
            self.record.end(name, states.DONE, **told)

    def _digest(self, name: str, section: type[Section]) -> str:
        """SHA-256 of what a section depends on."""
        work = self.work
        plain = {
            "version": VERSION,
            "sizes": [
                work.preset.sizes(one).model_dump(mode="json") for one in (name, *section.uses)
            ],
            "seeds": work.preset.seeds_of(name),
            "models": {n: work.preset.models.get(n) for n in section.models},
            "device": work.device,
            "data": {n: _sha(work.data[n]) for n in section.data if n in work.data},
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def _is_done(self, name: str) -> bool:
        before = self.record.sections.get(name)
        if before is None or before["state"] != states.DONE:
            return False
        return bool(before["digest"] == self._digest(name, self.wanted[name]))

    def _time_left(self) -> str:
        """What the remaining sections will take, by what the finished ones took."""
        expected = sum(self.work.preset.sizes(name).seconds for name in self.left)
        pace = self.spent / self.expected if self.expected else 1.0
        count = len(self.left)
        return f" (about {in_time(expected * pace)} left for {count} section{'s' * (count > 1)})"

    def _write(self) -> None:
        with self.record.changing():
            write_page(self.record.folder / PAGE, self.record, self.command)
            write_text_atomically(self.record.folder / TABLE, self.report().markdown())

    def _say(self, text: str) -> None:
        if self.work.progress:
            print(text, file=sys.stderr, flush=True)


def _teams_of(name: str) -> set[str]:
    """Sections whose teams a section trains or uses; its own if it is not registered here."""
    known = name in sections.names()
    return {name, *(sections.get(name).uses if known else ())}


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

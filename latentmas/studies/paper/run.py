"""`run_paper`: run a small version of the paper's tables, and build one report."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from latentmas.atomic import check_writable, write_text_atomically
from latentmas.backbones import fast_dtype
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, LatentMASError, closest
from latentmas.redact import redact
from latentmas.studies.paper import state as states
from latentmas.studies.paper._base import Outcome, Section, Skipped, in_order
from latentmas.studies.paper.page import write_page
from latentmas.studies.paper.presets import Preset, open_preset
from latentmas.studies.paper.report import (
    PaperInterrupted,
    PaperReport,
    PlannedSection,
    in_time,
)
from latentmas.studies.paper.state import FILE, Record, one_process
from latentmas.studies.paper.work import Work

__all__ = ["plan_paper", "run_paper"]

PAGE, TABLE = "index.html", "verdicts.md"
VERSION = 1
"""Raised whenever sections measure something else, so that finished ones run again."""


def plan_paper(
    preset: str | Path | Preset = "small",
    folder: str | Path = "paper-out",
    *,
    only: Sequence[str] | None = None,
    seeds: int | None = None,
    models: Mapping[str, str] | None = None,
) -> list[PlannedSection]:
    """List sections, their expected time and how far they have come; nothing is loaded.

    Arguments and errors are those of `run_paper`.
    """
    chosen = open_preset(preset).changed(seeds=seeds, models=models or {})
    record = Record.read(Path(folder))
    done = {} if record is None else record.sections
    return [
        PlannedSection(
            name,
            section.title,
            done.get(name, {}).get("state", states.WAITING),
            chosen.seeds_of(name),
            chosen.sizes(name).seconds,
        )
        for name, section in in_order(only).items()
    ]


def run_paper(
    preset: str | Path | Preset = "small",
    folder: str | Path = "paper-out",
    *,
    only: Sequence[str] | None = None,
    data: Mapping[str, str | Path] | None = None,
    seeds: int | None = None,
    models: Mapping[str, str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> PaperReport:
    """Run a small version of the paper's tables, claim by claim, and build one HTML report.

    Whatever is finished is kept: the same call again, after an interruption of any kind, continues.
    The page is rewritten after each section. A section that fails does not stop the others.

    Args:
        preset: `"small"`, `"tiny"`, a YAML file with the fields of `Preset`, or a preset.
        folder: Folder of the report: `index.html`, the verdicts as a table in `verdicts.md`,
            everything as data in `paper.json`, and the cells of all studies.
        only: Names of sections; None runs all.
        data: Files by name: `gsm8k`, `gsm8k-train`.
        seeds: Number of seeds of every section; None takes the preset's.
        models: Sources of models by name: `reader`, `answerer`; others are the preset's.
        device: Device of the models; None uses the first GPU, or the CPU if there is none.
        progress: Whether to print lines on stderr.

    Returns:
        Outcomes of the sections, and the page.

    Raises:
        LatentMASError: a name is unknown, or another process is at work on the folder.
        DataError: a file cannot be read, or the folder holds a report of other models.
        PaperInterrupted: Ctrl-C was pressed.
    """
    chosen = open_preset(preset).changed(seeds=seeds, models=models or {})
    wanted = in_order(only)
    for name in wanted:
        chosen.sizes(name)
    files = _files(data or {})
    place = Path(folder)
    check_writable(place / FILE)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with one_process(place):
        chosen = chosen.model_copy(update={"dtype": _dtype(place, chosen, where)})
        record = Record.open(place, chosen.model_dump(mode="json"))
        record.machine = {"hardware": hardware(), "versions": versions(), "device": where}
        work = Work("", chosen, place, files, where, progress)
        run = _Run(record, work, wanted, _command(preset, seeds, models or {}, files))
        run.all()
        return run.report()


def _dtype(folder: Path, preset: Preset, device: str) -> str:
    """The data type that the preset names, or else that of the report in the folder."""
    before = Record.read(folder)
    kept = None if before is None else before.preset["dtype"]
    return preset.dtype or kept or fast_dtype(device)


def _command(
    preset: str | Path | Preset,
    seeds: int | None,
    models: Mapping[str, str],
    data: Mapping[str, Path],
) -> str:
    """The command that a report can be repeated with; names of files without their folders."""
    name = preset.name if isinstance(preset, Preset) else Path(preset).name
    words = ["latentmas", "paper", "--preset", name]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [word for pair in models.items() for word in ("--model", "=".join(pair))]
    words += [word for key, path in data.items() for word in ("--data", f"{key}={path.name}")]
    return shlex.join(words)


def _files(data: Mapping[str, str | Path]) -> dict[str, Path]:
    """Data files by name.

    Raises:
        LatentMASError: no section reads data of that name.
        DataError: a file is missing.
    """
    known = [name for section in in_order().values() for name in section.data]
    for name, path in data.items():
        if name not in known:
            guess = closest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
            raise LatentMASError(f"no section reads data named {name!r}; {hint}")
        if not Path(path).is_file():
            raise DataError(f"data {name!r}: {str(path)!r} is not a file")
    return {name: Path(path) for name, path in data.items()}


@dataclass
class _Run:
    """One session."""

    record: Record
    work: Work
    wanted: Mapping[str, type[Section]]
    command: str
    spent: float = 0.0
    """Seconds of the sections that this session has finished."""
    expected: float = 0.0
    """Seconds that they were expected to take."""
    left: list[str] = field(default_factory=list)

    def all(self) -> None:
        """Run what is missing; the page shows each section as soon as it is done."""
        self.left = [name for name in self.wanted if not self._is_done(name)]
        if not self.left:
            self._write()
            return
        self.record.begin_session()
        self._write()
        for number, (name, section) in enumerate(self.wanted.items(), start=1):
            head = f"[{number}/{len(self.wanted)}] {name}"
            if name not in self.left:
                self._say(f"{head}: done before")
                continue
            self._say(f"{head}: {section.title}{self._time_left()}")
            try:
                self._one(name, section)
            finally:
                self._write()
            self.left.remove(name)
        self.record.end_session()
        self._write()

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

    def _one(self, name: str, section: type[Section]) -> None:
        began = time.perf_counter()
        self.record.begin(name, self._digest(name, section))
        try:
            outcome = section.run(self.work.beside(name))
        except Skipped as reason:
            self.record.end(name, states.SKIPPED, reason=redact(str(reason)))
            self._say(f"  {name}: skipped: {reason}")
            return
        except KeyboardInterrupt:
            self.record.end(name, states.WAITING)
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
        write_page(self.record.folder / PAGE, self.record, self.command)
        write_text_atomically(self.record.folder / TABLE, self.report().markdown())

    def _say(self, text: str) -> None:
        if self.work.progress:
            print(text, file=sys.stderr, flush=True)


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

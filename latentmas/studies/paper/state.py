"""`Record`: what `paper.json` holds: the preset, the sessions, and each section's outcome.

Several processes may work on one report. Each changes the file under the folder's lock, after
reading what the others have written, and holds a lock of its own as long as it lives, which tells
a section that another process runs from one that a killed process has left.
"""

from __future__ import annotations

import calendar
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError, LatentMASError
from latentmas.io.storage.lock import LOCK, locked
from latentmas.safe_data import read_json

__all__ = ["FILE", "Record"]

FILE = "paper.json"
FORMAT = 1
LARGEST = 2**26
WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"


@dataclass
class Record:
    """The state of a report, on disk after every change."""

    folder: Path
    """Folder of the report."""
    preset: dict[str, Any]
    """The preset, as plain data."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """When the report was worked on: key, start, end, seconds, and whether the session ended
    itself; the end of one that was killed is that of the last file that it wrote."""
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name → state, digest, seconds, error or reason, and outcome."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Hardware and versions of the last session."""
    key: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    """Name of the session of this process."""

    @classmethod
    def open(cls, folder: Path, preset: dict[str, Any]) -> Record:
        """The record of a folder, or a new one; the folder is created.

        Raises:
            DataError: the folder holds a report of another preset or other models, or is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        found = cls.read(folder)
        if found is None:
            return cls(folder, preset)
        for name in ("name", "models", "dtype"):
            if found.preset[name] != preset[name]:
                raise DataError(
                    f"{str(folder)!r} holds a report whose {name} is {found.preset[name]!r}, and "
                    f"not {preset[name]!r}; choose another folder"
                )
        found.preset = preset
        return found

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a folder; None if there is none.

        Raises:
            DataError: the file is damaged, or of another version.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            found = read_json(path, LARGEST)
            if found.pop("format") != FORMAT:
                raise DataError("it was written by another version of latentmas")
            return cls(folder, **found)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"{str(path)!r} is not the record of a report: {error!r:.200}"
            ) from error

    def write(self) -> None:
        """Write the file."""
        names = ("preset", "sessions", "sections", "machine")
        plain = {"format": FORMAT} | {name: getattr(self, name) for name in names}
        text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text_atomically(self.folder / FILE, text)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the file: read what other processes have written, and write what is changed.

        Raises:
            DataError: the file is damaged.
        """
        with locked(self.folder):
            now = Record.read(self.folder)
            if now is not None:
                self.sessions, self.sections = now.sessions, now.sections
            self._end_stopped()
            yield
            self.write()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Note a session of this process; without an exception, it ends itself."""
        with locked(self.folder, patience=0.0, name=_lock_of(self.key)):
            with self.changing():
                self.sessions.append({"key": self.key, "start": _time(time.time())})
                self._see(self.sessions[-1], time.time(), finished=False)
            yield
            with self.changing():
                self._see(self._own, time.time(), finished=True)

    def runs(self, name: str) -> bool:
        """Whether a section is being run, as far as the file said when it was last read."""
        return name in self.running

    @property
    def running(self) -> list[str]:
        """Sections that are being run, as far as the file said when it was last read."""
        return [name for name, one in self.sections.items() if one["state"] == RUNNING]

    def ended(self, name: str) -> bool:
        """Whether a section has come to an end, whatever that was."""
        return self.sections.get(name, {}).get("state") in (DONE, FAILED, SKIPPED)

    def begin(self, name: str, digest: str) -> None:
        """Note, inside `changing`, that this process runs a section."""
        before = self.sections.get(name, {})
        kept = before.get("seconds", 0.0) if before.get("digest") == digest else 0.0
        self.sections[name] = {
            "state": RUNNING,
            "digest": digest,
            "seconds": kept,
            "since": time.time(),
            "session": self.key,
        }

    def end(self, name: str, state: str, **found: Any) -> None:
        """Note what became of a section.

        Args:
            name: The section.
            state: `"done"`, `"failed"`, `"skipped"` or `"waiting"`.
            **found: Its `outcome`, `reason` or `error`.
        """
        with self.changing():
            _stop(self.sections[name], time.time(), state)
            self.sections[name] |= found
            self._see(self._own, time.time(), finished=False)

    @property
    def seconds(self) -> float:
        """Seconds of all sessions."""
        return float(sum(one["seconds"] for one in self.sessions))

    @property
    def _own(self) -> dict[str, Any]:
        return next(one for one in self.sessions if one.get("key") == self.key)

    def _end_stopped(self) -> None:
        """End what processes have left that were killed; the newest file is the last sign."""
        for session in self.sessions:
            if session["finished"] or session.get("stopped") or self._lives(session):
                continue
            last = _stamp(session.get("end", session["start"]))
            for name, section in self.sections.items():
                if section["state"] == RUNNING and section.get("session") == session.get("key"):
                    files = (self.folder / "cells" / name).rglob("[!.]*")  # no locks
                    times = (path.stat().st_mtime for path in files if path.is_file())
                    seen = max(times, default=section["since"])
                    _stop(section, seen, WAITING)
                    last = max(last, seen)
            self._see(session, last, finished=False)
            session["stopped"] = True

    def _lives(self, session: dict[str, Any]) -> bool:
        """Whether the process of a session holds its lock."""
        if "key" not in session:
            return False
        try:
            with locked(self.folder, patience=0.0, name=_lock_of(session["key"])):
                return False
        except LatentMASError:
            return True

    @staticmethod
    def _see(session: dict[str, Any], at: float, *, finished: bool) -> None:
        """Note that a session was alive at a time."""
        spent = max(0.0, at - _stamp(session["start"]))
        session |= {"end": _time(at), "seconds": round(spent, 1), "finished": finished}


def _stop(section: dict[str, Any], at: float, state: str) -> None:
    """Note that a section is no longer run."""
    section.pop("session", None)
    seconds = section["seconds"] + max(0.0, at - section.pop("since", at))
    section |= {"state": state, "seconds": round(seconds, 1)}


def _lock_of(key: str) -> str:
    return f"{LOCK}-{key}"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _stamp(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))

"""`Record`: what `paper.json` holds: the preset, the sessions, and each section's outcome."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError, LatentMASError
from latentmas.io.storage.lock import locked
from latentmas.safe_data import read_json

__all__ = ["FILE", "Record", "one_process"]

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
    """When the report was worked on: start, end, seconds, and whether the session ended itself;
    the end of one that was killed is that of the last file that it wrote."""
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name → state, digest, seconds, error or reason, and outcome."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Hardware and versions of the last session."""

    @classmethod
    def open(cls, folder: Path, preset: dict[str, Any]) -> Record:
        """The record of a folder, or a new one.

        Raises:
            DataError: the folder holds a report of another preset or other models, or is damaged.
        """
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
        found._end_stopped()
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

    def begin_session(self) -> None:
        """Note the start of a session."""
        self.sessions.append({"start": _time(time.time())})
        self._see(time.time(), finished=False)
        self.write()

    def end_session(self) -> None:
        """Note the end of the session."""
        self._see(time.time(), finished=True)
        self.write()

    def begin(self, name: str, digest: str) -> None:
        """Note that a section is being run."""
        before = self.sections.get(name, {})
        kept = before.get("seconds", 0.0) if before.get("digest") == digest else 0.0
        self.sections[name] = {
            "state": RUNNING,
            "digest": digest,
            "seconds": kept,
            "since": time.time(),
        }
        self.write()

    def end(self, name: str, state: str, **found: Any) -> None:
        """Note what became of a section.

        Args:
            name: The section.
            state: `"done"`, `"failed"`, `"skipped"` or `"waiting"`.
            **found: Its `outcome`, `reason` or `error`.
        """
        section = self.sections[name]
        seconds = section["seconds"] + max(0.0, time.time() - section.pop("since"))
        section |= {"state": state, "seconds": round(seconds, 1), **found}
        self._see(time.time(), finished=False)
        self.write()

    @property
    def seconds(self) -> float:
        """Seconds of all sessions."""
        return float(sum(one["seconds"] for one in self.sessions))

    def _end_stopped(self) -> None:
        """End what a process has left that was killed: its last sign of life is the newest file."""
        files = (path for path in self.folder.rglob("[!.]*") if path.is_file())  # no locks
        last = max((path.stat().st_mtime for path in files), default=time.time())
        if self.sessions and not self.sessions[-1]["finished"]:
            self._see(last, finished=False)
        for section in self.sections.values():
            if section["state"] == RUNNING:
                spent = max(0.0, last - section.pop("since"))
                section |= {"state": WAITING, "seconds": round(section["seconds"] + spent, 1)}

    def _see(self, at: float, *, finished: bool) -> None:
        """Note that the last session was alive at a time."""
        session = self.sessions[-1]
        spent = max(0.0, at - _stamp(session["start"]))
        session |= {"end": _time(at), "seconds": round(spent, 1), "finished": finished}


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Hold a report's folder.

    Raises:
        LatentMASError: another process is at work on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, patience=0.0))
        except LatentMASError as error:
            raise LatentMASError(
                f"another process is at work on {str(folder)!r}; wait for it, or choose another "
                "folder"
            ) from error
        yield


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _stamp(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))

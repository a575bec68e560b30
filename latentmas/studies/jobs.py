"""Running many cells: failures are kept, others go on, and processes share the work."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError, LatentMASError
from latentmas.io.storage.lock import locked
from latentmas.redact import redact
from latentmas.safe_data import read_json
from latentmas.studies.cells import FILE, Cell, CellResult, Setting, begun_digest, in_words

__all__ = ["FailedCell", "Job", "JobEnd", "check_cells", "read_failure", "run_jobs"]

FAILED = "failed.json"
LARGEST = 2**20
PAUSE = 0.5
"""Seconds between two looks at cells that other processes are running."""


@dataclass(frozen=True)
class Job:
    """A cell that is to be run."""

    cell: Cell
    run: Callable[[], CellResult]
    """Runs it; returns at once if it is finished."""


@dataclass(frozen=True)
class FailedCell:
    """A cell that could not be finished."""

    settings: dict[str, Setting]
    """Settings of the cell."""
    error: str
    """What went wrong."""
    kind: str
    """Type of the exception."""
    digest: str = field(repr=False)
    """Digest of the cell."""
    traceback: str = field(repr=False)
    """Where it went wrong."""

    def __str__(self) -> str:
        return f"{in_words(self.settings)}: {self.error or self.kind}"


@dataclass(frozen=True)
class JobEnd:
    """The end of one cell, for whoever watches a study."""

    number: int
    """Number of cells that have ended, with this one."""
    total: int
    cell: Cell
    found: CellResult | FailedCell
    """What came out of it."""
    seconds: float | None
    """Seconds that it took in this session; None for a cell that was finished before."""
    left: float | None
    """Estimate of the seconds that the other cells will take; None before one was run."""


def check_cells(study: Path, cells: Sequence[Cell]) -> None:
    """Check, before anything runs, that a folder holds no other versions of some cells.

    Raises:
        DataError: it does; the error lists them.
    """
    other = [
        cell.name for cell in cells if begun_digest(study / cell.name) not in (None, cell.digest)
    ]
    if other:
        shown = ", ".join(map(repr, other[:5])) + (", …" if len(other) > 5 else "")
        raise DataError(
            f"{str(study)!r} holds {len(other)} of these cells for another team, other data, "
            f"another training or another evaluation: {shown}; choose another folder, or delete "
            "these"
        )


def run_jobs(
    study: Path,
    jobs: Sequence[Job],
    *,
    retry: bool = False,
    on_end: Callable[[JobEnd], object] | None = None,
    on_wait: Callable[[int], object] | None = None,
    after_failure: Callable[[], object] | None = None,
) -> list[CellResult | FailedCell]:
    """Run cells in order, one after another, and wait for those that other processes are running.

    Several processes may run the same study at the same time; each cell is run by one of them.

    Args:
        study: Folder of the study.
        jobs: The cells.
        retry: Whether to run cells again that had failed before this call.
        on_end: Called when a cell has ended, in this process or in another.
        on_wait: Called with the number of cells that are left, once other processes run them all.
        after_failure: Called when a cell has failed in this process.

    Returns:
        What came out of each job, in order. Whatever a cell raises makes it a failed one, except
        for `KeyboardInterrupt`.
    """
    again = {job.cell.name: _stamp(study, job.cell) for job in jobs} if retry else {}
    ended: dict[int, CellResult | FailedCell] = {}
    spent, said = list[float](), 0
    waiting = list(enumerate(jobs))
    while waiting:
        busy = []
        for place, job in waiting:
            began = time.perf_counter()
            with _claim(study / job.cell.name) as mine:
                if not mine:
                    busy.append((place, job))
                    continue
                before = _stamp(study, job.cell, FILE)
                found = read_failure(study, job.cell)
                if found is None or again.get(job.cell.name) == _stamp(study, job.cell):
                    ended[place] = _run(study, job)
                    fresh = _ran(study, job, ended[place], before)
                else:
                    ended[place], fresh = found, False
            seconds = time.perf_counter() - began if fresh else None
            spent += [seconds] if seconds is not None else []
            if isinstance(ended[place], FailedCell) and fresh and after_failure is not None:
                after_failure()
            if on_end is not None:
                left = sum(spent) / len(spent) * (len(jobs) - len(ended)) if spent else None
                on_end(JobEnd(len(ended), len(jobs), job.cell, ended[place], seconds, left))
        if len(busy) == len(waiting):
            if on_wait is not None and len(busy) != said:
                on_wait(said := len(busy))
            time.sleep(PAUSE)
        waiting = busy
    return [ended[place] for place in range(len(jobs))]


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold a cell, unless another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        mine = True
        try:
            stack.enter_context(locked(folder, patience=0))
        except LatentMASError:
            mine = False
        yield mine


def _run(study: Path, job: Job) -> CellResult | FailedCell:
    """Run a cell; what it raises is kept, so that one bad cell does not end a long study."""
    path = study / job.cell.name / FAILED
    try:
        result = job.run()
    except Exception as error:
        text = redact("".join(traceback.format_exception(error)))
        said = " ".join(redact(str(error)).split())
        failure = FailedCell(
            dict(job.cell.settings), said, type(error).__name__, job.cell.digest, text
        )
        write_text_atomically(path, json.dumps(vars(failure), indent=1) + "\n")
        return failure
    with suppress(FileNotFoundError):
        path.unlink()
    return result


def read_failure(study: Path, cell: Cell) -> FailedCell | None:
    """The failure of a cell that is on record; None if it has not failed.

    Raises:
        DataError: the record is damaged.
    """
    path = study / cell.name / FAILED
    if not path.exists():
        return None
    try:
        found = FailedCell(**read_json(path, LARGEST))
    except (TypeError, ValueError) as error:
        raise DataError(f"{str(path)!r} is damaged ({error!r:.200}); delete it") from error
    return found


def _ran(study: Path, job: Job, found: CellResult | FailedCell, before: int | None) -> bool:
    """Whether a cell was run, and not only read."""
    return isinstance(found, FailedCell) or _stamp(study, job.cell, FILE) != before


def _stamp(study: Path, cell: Cell, name: str = FAILED) -> int | None:
    """When a file was written, so that one of this session is told from an earlier one."""
    try:
        return (study / cell.name / name).stat().st_mtime_ns
    except FileNotFoundError:
        return None

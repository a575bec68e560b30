"""Answered rows: as they are printed, and on disk from the moment each is finished."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.atomic import append_whole
from latentmas.cli.support.console import note
from latentmas.cli.support.rows import Row, jsonl, write_rows

if TYPE_CHECKING:
    from latentmas.runtime import Event, RunResult, SampleEnd

__all__ = ["RowFile", "answered", "in_full", "sample_end"]


def sample_end(result: RunResult, number: int) -> SampleEnd:
    """The part of a result that belongs to one sample."""
    from latentmas.runtime import SampleEnd

    return SampleEnd(
        number,
        texts=tuple(result.sequences[number]),
        token_ids=tuple(tuple(ids) for ids in result.sequence_ids[number]),
        finish_reasons=tuple(result.finish_reasons[number]),
        tool_calls=tuple(result.tool_calls[number]),
        error=result.errors.get(number),
    )


def answered(row: Row, end: SampleEnd) -> Row:
    """A row with its answer, or with its error."""
    if end.error is not None:
        return row | {"prediction": None, "error": str(end.error)}
    found = row | {"prediction": end.texts[0]}
    if len(end.texts) > 1:
        found["predictions"] = list(end.texts)
    if end.tool_calls:
        found["tool_calls"] = [asdict(call) for call in end.tool_calls]
    return found


def in_full(row: Row, end: SampleEnd) -> Row:
    """As `answered`, with everything known about the answer: for files."""
    found = answered(row, end) | {"sample": end.sample}
    if end.error is not None:
        return found
    several = len(end.texts) > 1
    ids, reasons = [list(own) for own in end.token_ids], list(end.finish_reasons)
    if several:
        return found | {"token_ids": ids, "finish_reasons": reasons}
    return found | {"token_ids": ids[0], "finish_reason": reasons[0]}


class RowFile:
    """A JSONL file that takes each row when it is finished, and all in order at the end.

    A file that cannot be written does not stop the run: the first error is reported at the end.
    """

    def __init__(self, path: Path | None, count: int, row: Callable[[SampleEnd], Row]) -> None:
        """Prepare the file; an existing one is kept until the first row is finished.

        Args:
            path: path of the file; None writes none.
            count: number of rows of the run.
            row: function that makes a row from the end of a sample.
        """
        self.path, self.rows = path, dict[int, Row]()
        self.error: OSError | None = None
        self._count, self._row, self._runs = count, row, 0
        self._written, self._file = 0, -1

    def watch(self, event: Event) -> None:
        """Take in the rows of the first run that is reported; a twin's is the second."""
        from latentmas.runtime import RunBegin, SampleEnd

        self._runs += isinstance(event, RunBegin)
        if isinstance(event, SampleEnd) and self._runs == 1:
            self.rows[event.sample] = self._row(event)
            self._append(self.rows[event.sample])

    @contextmanager
    def kept(self) -> Iterator[RowFile]:
        """Around the run: reports how many rows are on disk if it fails."""
        try:
            yield self
        except BaseException:
            if self.error is None and self._written:
                note(f"{self._written} of {self._count} rows are in {self.path}")
            raise
        finally:
            if self._file >= 0:
                os.close(self._file)

    def finish(self, rows: list[Row]) -> bool:
        """Put the rows in order; whether all are on disk, if they are wanted there."""
        if self.path is None:
            return True
        special = self.path.exists() and not self.path.is_file()  # a pipe has got them already
        try:
            if not special:
                write_rows(self.path, rows)
                self.error = None
        except OSError as error:
            self.error = self.error or error
        if self.error is None:
            note(f"wrote {self.path}")
            return True
        held = f"; {self._written} of {self._count} rows are in it" if self._written else ""
        note(f"cannot write {str(self.path)!r}: {self.error.strerror or self.error}{held}")
        return False

    def _append(self, row: Row) -> None:
        """Append a line atomically."""
        if self.path is None or self.error is not None:
            return
        line = jsonl([row]).encode()
        try:
            if self._file < 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                self._file = os.open(self.path, flags, 0o666)
            append_whole(self._file, line)
            self._written += 1
        except OSError as error:
            self.error = error

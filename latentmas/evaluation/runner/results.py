"""The finished rows of an evaluation: in a file, or in memory where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from latentmas.errors import DataError
from latentmas.evaluation.runner.records import RowRecord
from latentmas.evaluation.runner.store import RowStore, read_records

__all__ = ["Results"]


class Results:
    """Rows by system and number. A file that cannot be written costs no results."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Open a file, with the rows that it holds; None keeps rows in memory.

        Raises:
            DataError: as for `RowStore`.
        """
        self._store = None if path is None else RowStore(path)
        self._memory: dict[tuple[str, int], RowRecord] = {}
        self._guard = threading.Lock()
        self.error: DataError | None = None
        """First error from writing the file; later rows are in memory alone."""

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    @property
    def on_disk(self) -> int:
        """Number of rows in the file."""
        return 0 if self._store is None else len(self._store)

    def key(self, system: str, row: int) -> str | None:
        """Key of a finished row; None if it is not finished, or has failed."""
        held = self._memory.get((system, row))
        if held is not None:
            return held.key if held.error is None else None
        return None if self._store is None else self._store.key((system, row))

    def add(self, record: RowRecord) -> None:
        """Keep a finished row."""
        written = False
        with self._guard:
            if self._store is not None and self.error is None:
                try:
                    self._store.add(record)
                    written = self._store.readable
                except DataError as error:
                    self.error = error
            if not written:
                self._memory[record.system, record.row] = record

    def get(self, system: str, row: int) -> RowRecord:
        """A finished row.

        Raises:
            KeyError: the row is not finished.
        """
        held = self._memory.get((system, row))
        if held is not None:
            return held
        if self._store is None:
            raise KeyError((system, row))
        return self._store.get((system, row))

    def again(self, system: str, rows: Sequence[int]) -> Iterator[RowRecord]:
        """Finished rows of a system, in order, also after the file has been closed."""
        held, store = self._memory, self._store
        if store is None or not store.readable or self.error is not None:
            if store is not None and store.readable:  # the disk filled up on the way
                stored = {(one.system, one.row): one for one in read_records(store.path)}
                held = stored | held
            yield from (held[system, row] for row in rows)
            return
        wanted = set(rows)
        for record in read_records(store.path):
            if record.system == system and record.row in wanted:
                yield record

    def finish(self, order: Mapping[str, int]) -> None:
        """Put the rows of the file into order."""
        if self._store is not None and self.error is None:
            try:
                self._store.finish(order)
            except DataError as error:
                self.error = error

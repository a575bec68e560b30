"""A results file: JSONL that takes each row when it is finished, and survives a kill at any point.

Rows are appended in the order in which they finish; `finish` puts them into that of the data. Only
the offsets of rows are kept in memory.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentmas.atomic import append_whole, replacing_file, write_error
from latentmas.errors import DataError
from latentmas.evaluation.runner.records import RowRecord
from latentmas.safe_data import parse_json

if sys.platform != "win32":
    import fcntl

__all__ = ["RowStore", "read_records"]

Place = tuple[str, int]
"""System and number of a row."""


class RowStore:
    """Rows of one evaluation on disk, by system and number; safe for several threads.

    One process at a time writes to a file.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file, which may hold rows already; a line that a kill left unfinished is dropped.

        Raises:
            DataError: the file cannot be read or written, a line is not a row, or another process
                writes to the file.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._keys: dict[Place, str] = {}
        self._offsets: dict[Place, tuple[int, int]] = {}
        self._special = self.path.exists() and not self.path.is_file()  # a pipe or a device
        access = os.O_WRONLY if self._special else os.O_RDWR
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, access | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._end = 0
        try:
            if not self._special:
                self._claim()
                self._end = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def readable(self) -> bool:
        """Whether rows can be read back: not from a pipe or a device."""
        return not self._special

    def __len__(self) -> int:
        return len(self._offsets)

    def key(self, place: Place) -> str | None:
        """Key of a stored row; None if it is not there or has failed."""
        return self._keys.get(place)

    def places(self) -> list[Place]:
        """System and number of each stored row."""
        return list(self._offsets)

    def get(self, place: Place) -> RowRecord:
        """Read a stored row."""
        begin, size = self._offsets[place]
        line = os.pread(self._file, size, begin)
        return RowRecord.from_dict(json.loads(line), str(self.path))

    def add(self, record: RowRecord) -> None:
        """Append a row; a later row of the same place replaces it.

        Raises:
            DataError: the file cannot be written; whole lines remain.
        """
        line = json.dumps(record.to_dict(), ensure_ascii=False).encode(errors="surrogatepass")
        with self._lock:
            try:
                append_whole(self._file, line + b"\n")
            except OSError as error:
                raise write_error(self.path, error) from error
            self._note(record, self._end, len(line) + 1)
            self._end += len(line) + 1

    def finish(self, order: Mapping[str, int]) -> None:
        """Put the rows into order, atomically, unless they are in order already.

        Args:
            order: place of each system's rows in the file.
        """
        if self._special:
            return
        places = sorted(self._offsets, key=lambda one: (order.get(one[0], len(order)), one[1]))
        starts = [self._offsets[place][0] for place in places]
        size = sum(self._offsets[place][1] for place in places)
        if starts == sorted(starts) and size == self._end:
            return
        with self._lock, replacing_file(self.path) as temporary, temporary.open("wb") as file:
            for begin, length in (self._offsets[place] for place in places):
                file.write(os.pread(self._file, length, begin))
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        self._claim()
        self._end = self._read()

    def _claim(self) -> None:
        if sys.platform == "win32":
            return
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process may just be looking whether it is in use
                time.sleep(0.1)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise DataError(
                    f"another process writes to {str(self.path)!r}; wait for it, or name another "
                    "file"
                ) from error

    def _read(self) -> int:
        """Index the lines; the end of the last whole one, where the file is cut."""
        self._keys, self._offsets, end = {}, {}, 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                if line.strip():
                    where = f"{self.path}:{number}"
                    record = RowRecord.from_dict(_parsed(line, where), where)
                    self._note(record, end, len(line))
                end += len(line)
        if end < os.fstat(self._file).st_size:
            os.ftruncate(self._file, end)
        return end

    def _note(self, record: RowRecord, begin: int, size: int) -> None:
        place = record.system, record.row
        self._offsets[place] = (begin, size)
        if record.error is None:
            self._keys[place] = record.key


def read_records(path: str | Path) -> Iterator[RowRecord]:
    """Read a results file row by row; a line that a kill left unfinished is skipped.

    Raises:
        DataError: the file cannot be read, or a line is not a row.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n") and line.strip():
                    where = f"{path}:{number}"
                    yield RowRecord.from_dict(_parsed(line, where), where)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = parse_json(line.decode(errors="surrogatepass"), numbers="any")
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{where}: found {type(data).__name__}, not a JSON object")
    return data

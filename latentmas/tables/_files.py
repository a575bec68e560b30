"""Local files of rows, read within limits: JSONL, JSON, CSV and parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from latentmas.errors import DataError
from latentmas.safe_data import decode_text, parse_json
from latentmas.tables._table import EXTRA, Row, Table, check_count

__all__ = ["read_table"]

LARGEST_FILE = 4 * 2**30
"""Maximum size of a file, and of its content once decompressed."""
LARGEST_LINE = 256 * 2**20
LARGEST_DOCUMENT = 512 * 2**20
"""Maximum size of a JSON list or a CSV file, which is read as one piece."""
MOST_ITEMS = 20_000_000
"""Maximum number of brackets, braces, commas and colons in a JSON list."""
_BROKEN = (OSError, EOFError, zlib.error)
_BOM = b"\xef\xbb\xbf"


def read_table(path: str | Path, *, limit: int | None = None) -> Table:
    """Rows of a file, by the ending of its name.

    `.jsonl` has one JSON object per line. `.json` is a list of objects, or an object that holds
    such a list under `data`. `.csv` has a header. These three may be compressed (`.gz`).
    `.parquet` needs the package pyarrow.

    Args:
        path: the file.
        limit: maximum number of rows, from the start.

    Raises:
        DataError: the file cannot be read, has another form, is empty or absurdly large.
    """
    path = Path(path)
    kinds = [ending.lower() for ending in path.suffixes]
    packed = kinds[-1:] == [".gz"]
    kind = ["", *kinds][-2 if packed else -1]
    whole = kind == ".parquet" and not packed
    if kind not in _READERS and not whole:
        raise DataError(
            f"{str(path)!r} has an unknown ending; give a file that ends in .jsonl, .json or .csv, "
            "each with or without .gz, or in .parquet"
        )
    _check_file(path)
    try:
        if whole:
            return _not_empty(Table(_parquet(path, limit), str(path)))
        opened = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115 - closed below
        with opened as stream:
            return _not_empty(_READERS[kind](path, cast(IO[bytes], stream), limit))
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {str(path)!r}: {reason}") from error


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{str(path)!r} is not a regular file; give a file of rows")
    if found.st_size > LARGEST_FILE:
        raise DataError(f"{str(path)!r} is larger than {LARGEST_FILE:,} bytes; split it")


def _not_empty(table: Table) -> Table:
    if not table.rows:
        raise DataError(f"{table.source}: there are no rows in it")
    return table


def _jsonl(path: Path, stream: IO[bytes], limit: int | None) -> Table:
    rows, lines = list[Row](), list[int]()
    for number, line in _lines(path, stream):
        if limit is not None and len(rows) >= limit:
            break
        if line.strip():
            rows.append(_json_row(f"{path}:{number}", line))
            lines.append(number)
            check_count(str(path), len(rows))
    return Table(rows, str(path), lines)


def _lines(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, none of them absurdly long."""
    number = total = 0
    while line := stream.readline(LARGEST_LINE + 1):
        number, total = number + 1, total + len(line)
        if len(line) > LARGEST_LINE:
            raise DataError(f"{path}:{number}: a line of more than {LARGEST_LINE:,} bytes")
        if total > LARGEST_FILE:
            raise DataError(f"{path}: its content is larger than {LARGEST_FILE:,} bytes; split it")
        yield number, line.removeprefix(_BOM) if number == 1 else line


def _json_row(where: str, line: bytes) -> Row:
    try:
        row = parse_json(line, numbers="any")
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}; give one JSON object per line") from error
    return _checked(where, row)


def _checked(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, not a JSON object")
    return row


def _json(path: Path, stream: IO[bytes], limit: int | None) -> Table:
    raw = _whole(path, stream).removeprefix(_BOM)
    try:
        found = parse_json(raw, most_items=MOST_ITEMS, numbers="any")
    except ValueError as error:
        lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        hint = "; rename a file with one object per line to .jsonl" if lines else ""
        raise DataError(f"{path}: not JSON: {error}{hint}") from error
    if isinstance(found, dict) and "data" in found:
        found = found["data"]
    if not isinstance(found, list):
        raise DataError(
            f"{path}: found {type(found).__name__}; give a list of objects, or an object that "
            "holds the list under 'data'"
        )
    check_count(str(path), len(found))
    rows = found if limit is None else found[:limit]
    return Table([_checked(f"{path}, row {i}", row) for i, row in enumerate(rows)], str(path))


def _csv(path: Path, stream: IO[bytes], limit: int | None) -> Table:
    try:
        text = decode_text(_whole(path, stream))
    except ValueError as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    rows = list[Row]()
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if limit is not None and len(rows) >= limit:
                break
            if None in row or None in row.values():
                raise DataError(f"{path}, row {len(rows)}: its columns are not those of the header")
            rows.append(dict(row))
    except csv.Error as error:
        raise DataError(f"{path}, row {len(rows)}: not CSV: {error}") from error
    check_count(str(path), len(rows))
    return Table(rows, str(path))


def _whole(path: Path, stream: IO[bytes]) -> bytes:
    raw = stream.read(LARGEST_DOCUMENT + 1)
    if len(raw) > LARGEST_DOCUMENT:
        raise DataError(
            f"{path}: its content is larger than {LARGEST_DOCUMENT:,} bytes; give it as .jsonl"
        )
    return raw


def _parquet(path: Path, limit: int | None) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(
            f"reading {str(path)!r} needs the package pyarrow; install it with {EXTRA}, or give "
            "the rows as .jsonl"
        ) from error
    rows = list[Row]()
    try:
        file = parquet.ParquetFile(path)
        about = file.metadata
        check_count(str(path), about.num_rows)
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if size > LARGEST_FILE:
            raise DataError(f"{path}: its content is larger than {LARGEST_FILE:,} bytes")
        for batch in file.iter_batches(batch_size=1024):
            rows += batch.to_pylist()
            if limit is not None and len(rows) >= limit:
                return rows[:limit]
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a parquet file that can be read: {reason}") from error
    return rows


_READERS: dict[str, Callable[[Path, IO[bytes], int | None], Table]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
}

"""Safetensors files, whose header is checked before any weight is read. No torch.

The header is a JSON object of at most a few megabytes before the weights: name → type, shape and
offsets. The offsets must cover the file without gap or overlap and match types and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from latentmas.errors import WeightsError
from latentmas.safe_data.files import check_plain_file
from latentmas.safe_data.plain import parse_json

__all__ = ["FLOATS", "Entry", "Header", "compare_header", "read_header"]

LARGEST_HEADER = 16 * 2**20
LARGEST_FILE = 2**40
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Supported data types → bytes per element."""
_SIZES = FLOATS | {
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "C64": 8,
}
_NAMES = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool"}
_FIELDS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of the first byte in the file."""
    end: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class Header(NamedTuple):
    """The header of a file."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    bytes: int
    """Size of the whole file in bytes."""


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file without reading the weights.

    Raises:
        WeightsError: The header is invalid (LM503), or it is not a regular file (LM502).
        FileNotFoundError: The file does not exist.
    """
    size = check_plain_file(path, LARGEST_FILE)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            _check_length(length, size)
            raw = file.read(length)
        return _header(_object(raw), size, 8 + length)
    except (OSError, ValueError) as error:
        raise WeightsError(f"LM503 {path} cannot be read: {error}") from error


def _check_length(length: int, size: int) -> None:
    if size < 8:
        raise ValueError(f"it has {size} bytes; a safetensors file has 8 and a header")
    if length > size - 8:
        raise ValueError(f"its header would have {length:,} bytes, and the file has {size:,}")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes, more than {LARGEST_HEADER:,}")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = parse_json(raw)
    except ValueError as error:
        raise ValueError(f"its header is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not raw.startswith(b"{"):
        raise ValueError("its header is not a JSON object")
    return data


def _header(data: dict[str, Any], size: int, begin: int) -> Header:
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its __metadata__ is not a mapping of strings")
    entries = {name: _entry(name, value, begin) for name, value in data.items()}
    place = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != place:
            how = "overlaps another" if entry.start < place else "leaves a gap before it"
            raise ValueError(f"{name!r:.80}: data_offsets at {entry.start - begin:,}: {how}")
        place = entry.end
    if place != size:
        raise ValueError(f"its tensors end at byte {place:,}, and the file has {size:,}")
    return Header(entries, metadata, size)


def _entry(name: str, value: Any, begin: int) -> Entry:
    where = f"{name!r:.80}"
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise ValueError(f"{where} does not have exactly the fields {', '.join(sorted(_FIELDS))}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise ValueError(f"{where}: unknown dtype {dtype!r:.40}; known: {', '.join(_SIZES)}")
    if not _counts(shape):
        raise ValueError(f"{where}: shape {shape!s:.60} is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{where}: data_offsets {offsets!s:.60} are not a range")
    needed, given = math.prod(shape) * _SIZES[dtype], offsets[1] - offsets[0]
    if needed != given:
        raise ValueError(
            f"{where}: shape {tuple(shape)!s:.60} of {dtype} takes {needed:,} bytes, and its "
            f"data_offsets hold {given:,}"
        )
    return Entry(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _counts(value: Any) -> bool:
    """Whether a value is a short list of non-negative integers."""
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(number) is int and number >= 0 for number in value)
    )


def compare_header(
    header: Header, wanted: Mapping[str, Sequence[int]], *, exactly: bool = True
) -> list[str]:
    """Differences between a file and the expected tensors: names, shapes and types.

    Args:
        header: Header of the file.
        wanted: Expected tensors, name → shape.
        exactly: Whether additional tensors in the file count as differences.

    Returns:
        One line per difference; empty if all tensors match.
    """
    entries = header.entries
    lines = [f"missing: {name}" for name in wanted if name not in entries]
    if exactly:
        lines += [f"unexpected: {name:.200}" for name in entries if name not in wanted]
    for name in _both(wanted, entries):
        found, shape = entries[name], tuple(wanted[name])
        if found.shape != shape:
            lines.append(f"{name}: shape {found.shape}, not {shape}")
        elif found.dtype not in FLOATS:
            kind = _NAMES.get(found.dtype, found.dtype)
            lines.append(f"{name}: type {kind}, not one of {', '.join(FLOATS)}")
    return lines


def _both(wanted: Iterable[str], entries: Mapping[str, Entry]) -> list[str]:
    return [name for name in wanted if name in entries]

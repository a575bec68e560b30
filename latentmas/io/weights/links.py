"""Norms and distances of link weights on disk, read in chunks with numpy and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latentmas.errors import WeightsError
from latentmas.safe_data import FLOATS, Entry

__all__ = ["Measure", "distance", "measure"]

PIECE = 2**20
"""Number of weights in memory at a time."""
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Measure(NamedTuple):
    """A norm over several tensors."""

    norm: float
    """Root of the sum of squares; NaN or infinite if a weight is."""
    finite: bool


def measure(path: Path, entries: Sequence[Entry]) -> Measure:
    """Compute the norm over several tensors of a file.

    Raises:
        WeightsError: LM503 when the file is truncated or its weights are not floats.
    """
    total, finite = 0.0, True
    for entry in entries:
        for piece in _pieces(path, entry):
            total += _squares(piece)
            finite = finite and bool(np.isfinite(piece).all())
    return Measure(math.sqrt(total) if total >= 0 else math.nan, finite)


def distance(a: Path, ours: Sequence[Entry], b: Path, theirs: Sequence[Entry]) -> float:
    """Norm of the difference between tensors that have equal shapes and the same order."""
    total = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        for x, y in zip(_pieces(a, mine), _pieces(b, other), strict=True):
            total += _squares(x - y)
    return math.sqrt(total) if total >= 0 else math.nan


def _squares(piece: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    with np.errstate(all="ignore"):
        return float(np.dot(piece, piece))


def _pieces(path: Path, entry: Entry) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Yield a tensor's weights as flat fp64 arrays."""
    if entry.dtype not in FLOATS:
        raise WeightsError(
            f"LM503 {path} holds weights of type {entry.dtype}, not of a floating-point type"
        )
    width = FLOATS[entry.dtype]
    with path.open("rb") as file:
        file.seek(entry.start)
        for first in range(0, entry.size, PIECE):
            count = min(PIECE, entry.size - first)
            raw = file.read(count * width)
            if len(raw) < count * width:
                raise WeightsError(f"LM503 {path} is truncated: it ends before its last weight")
            yield _floats(raw, entry.dtype)


def _floats(raw: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = np.frombuffer(raw, _TYPES[dtype])
    if dtype == "BF16":  # numpy has no bfloat16: its bits are the upper half of an fp32
        found = (found.astype("<u4") << 16).view("<f4")
    with np.errstate(all="ignore"):
        return found.astype(np.float64)

"""Digest of rows, to tell whether two runs saw the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

__all__ = ["digest_of"]


def digest_of(rows: Iterable[object]) -> str:
    """SHA-256 (hex) of rows, in order; the order of fields in a row does not matter."""
    digest = hashlib.sha256()
    for row in rows:
        text = json.dumps(row, sort_keys=True, default=str, separators=(",", ":"))
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()

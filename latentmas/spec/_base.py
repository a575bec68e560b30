"""The base class of all declarations: frozen, strict about unknown fields, plain JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from latentmas.safe_data import LARGEST_INT

__all__ = ["Frozen", "canonical_json", "iter_invalid_values"]


class Frozen(BaseModel):
    """An immutable record that refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        hide_input_in_errors=True,
        defer_build=True,  # validators are built on first use, which keeps the import fast
    )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON form; equal records have equal fingerprints."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


DEEPEST = 64


def iter_invalid_values(
    value: Any, path: str = "graph", depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Values in plain data that a graph file cannot hold: the path and the problem of each."""
    odd = f"nested more than {DEEPEST} levels deep" if depth > DEEPEST else _invalid(value)
    if odd is not None:
        yield path, odd
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from iter_invalid_values(key, path, depth + 1)
                yield from iter_invalid_values(
                    item, f"{path}.{key}".removeprefix("graph."), depth + 1
                )
            else:
                yield path, f"has the key {key!r:.60}, which is not a string"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from iter_invalid_values(
                item, f"{path}.{index}".removeprefix("graph."), depth + 1
            )


def _invalid(value: Any) -> str | None:
    """The problem with a single value, its children aside; None if it is fine."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return "holds half of a surrogate pair, which UTF-8 cannot write"
    elif isinstance(value, bytes | date | set | frozenset):
        return f"holds a {type(value).__name__}, which is not a plain value"
    elif isinstance(value, int):
        if not -LARGEST_INT <= value < LARGEST_INT:
            return "holds an integer beyond 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"holds the number {value}, which is not finite"
    return None


def canonical_json(value: Any) -> str:
    """Canonical JSON: sorted keys and no white space, so equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

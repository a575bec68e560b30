"""The base of everything declared: frozen, strict about unknown fields, plain JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Frozen", "canonical_json", "oddities"]


class Frozen(BaseModel):
    """An immutable record that refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON form; equal records have equal fingerprints."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


DEEPEST = 64


def oddities(value: Any, path: str = "graph", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Places in plain data that no graph file can hold, each with what is wrong."""
    if depth > DEEPEST:
        yield path, f"nested more than {DEEPEST} levels deep"
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            yield path, "holds half of a surrogate pair, which UTF-8 cannot write"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from oddities(key, path, depth + 1)
                yield from oddities(item, f"{path}.{key}".removeprefix("graph."), depth + 1)
            else:
                yield path, f"has the key {key!r}, which is not text"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from oddities(item, f"{path}.{index}".removeprefix("graph."), depth + 1)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: one text per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

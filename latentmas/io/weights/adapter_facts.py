"""Adapters of a saved team on disk: sizes and norms, read without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentmas.errors import WeightsError
from latentmas.io._format import Manifest, file_digest
from latentmas.io.storage.folder import ADAPTERS, MANIFEST, part
from latentmas.io.weights.links import measure
from latentmas.safe_data import Header, inside, read_header

__all__ = ["AdapterFacts", "adapter_facts", "adapter_problems", "adapters_header"]


@dataclass(frozen=True)
class AdapterFacts:
    """One agent's own adapter as it is on disk."""

    agent: str
    """Agent that learned it."""
    r: int
    """Rank."""
    parameters: int
    """Number of weights."""
    bytes: int
    """Size of the weights in the file."""
    norm: float
    """Norm over all weights."""
    finite: bool
    """Whether all weights are finite."""


def adapters_header(folder: Path) -> tuple[Path, Header | None]:
    """Path and header of the adapters file. The header is None if the file does not exist.

    Raises:
        WeightsError: LM502 or LM503 when the file cannot be read.
    """
    path = part(folder, ADAPTERS)
    if not path.is_file():
        return path, None
    if not inside(folder, path):
        raise WeightsError(f"LM502 {ADAPTERS} points outside the folder {str(folder)!r}")
    return path, read_header(path)


def adapter_facts(folder: Path, manifest: Manifest) -> Iterator[AdapterFacts]:
    """Sizes and norms of all adapters of a team."""
    path, header = adapters_header(folder)
    for agent, lora in manifest.adapters.items():
        entries = [
            entry
            for name, entry in sorted(header.entries.items() if header else ())
            if name.startswith(f"{agent}.")
        ]
        found = measure(path, entries)
        yield AdapterFacts(
            agent=agent,
            r=lora.r,
            parameters=sum(entry.size for entry in entries),
            bytes=sum(entry.end - entry.start for entry in entries),
            norm=found.norm,
            finite=found.finite,
        )


def adapter_problems(
    folder: Path, manifest: Manifest, adapters: Sequence[AdapterFacts]
) -> Iterator[str]:
    """What keeps the adapters of a team from being loaded, as far as the files show it."""
    path, header = adapters_header(folder)
    if manifest.adapters and header is None:
        yield f"{ADAPTERS} is missing"
    for one in adapters:
        if not one.finite:
            yield f"adapter of {one.agent}: holds values that are not finite"
    known = tuple(f"{agent}." for agent in manifest.adapters)
    for name in header.entries if header else ():
        if not name.startswith(known):
            yield f"{name:.200}: does not belong to an adapter"
    if header is not None and manifest.adapter_weights not in (None, file_digest(path)):
        yield f"{ADAPTERS}: its SHA-256 differs from the one in {MANIFEST}"

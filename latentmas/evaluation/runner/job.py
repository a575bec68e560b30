"""What an evaluation runs: rows, and a job for each system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.runtime import System

__all__ = ["Job", "Recipe", "Rows", "even_batches"]


@dataclass(frozen=True)
class Rows:
    """The rows of an evaluation: samples with their correct answers."""

    samples: Sequence[Mapping[str, Any]]
    gold: Sequence[Any]
    names: Sequence[str]
    """Digest of each sample, with its count among equal ones."""
    errors: Mapping[int, LatentMASError]
    """Rows that cannot be graded, and why."""
    numbers: Sequence[int]
    """Rows to run: all of them, or those of a shard or of this process."""
    groups: Sequence[Sequence[int]] = ()
    """The same rows in batches that must not change, for jobs with `group`."""


@dataclass(frozen=True)
class Recipe:
    """How a job's system is made from one that is loaded, so that another process can make it."""

    base: System
    control: str | None = None
    """Name of the control to make of it; None for the system itself."""
    twin_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One system to evaluate."""

    name: str
    system: System
    keys: Sequence[str]
    """Key of each row."""
    settings: Mapping[str, Any]
    """What the answers depend on, as `settings_of` tells it."""
    recipe: Recipe
    edit: Callable[[str, Any], Any] | None = None
    """Replaces messages, for a control."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Further inputs of the system's graph, the same for all rows."""
    group: bool = False
    """Whether rows depend on the others of their batch, so that batches must not change."""
    whole: bool = False
    """All rows in one run, for a manifest or a report."""


def even_batches(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Rows in batches of nearly equal sizes: about `size`, and at least two.

    Raises:
        DataError: there is one row alone.
    """
    if len(numbers) < 2:
        raise DataError(
            f"{len(numbers)} row cannot be given the message of another; evaluate at least two "
            "rows, or leave out the control shuffled"
        )
    count = min(-(-len(numbers) // max(2, size)), len(numbers) // 2)
    small, more = divmod(len(numbers), count)
    batches, begin = [], 0
    for i in range(count):
        end = begin + small + (i < more)
        batches.append(list(numbers[begin:end]))
        begin = end
    return batches

"""What a system knows of its past: where it came from, how it was trained, how it scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentmas.errors import DataError

__all__ = ["Origin", "Score", "TrainingRecord"]


@dataclass(frozen=True)
class Origin:
    """Where a system's links came from."""

    source: str | None = None
    """Folder or hub id of a saved team; None for links that were started from a graph."""
    revision: str | None = None
    """The hub's commit."""
    seed: int = 0
    """Seed of the links that were initialised."""


@dataclass(frozen=True)
class TrainingRecord:
    """One training of a system's links. Saved below `training/`, in plain JSON.

    Raises:
        DataError: `loop` cannot name a folder.
    """

    loop: str
    """`"inner"`, `"edge"`, `"rollout"` or `"outer"`."""
    arguments: Mapping[str, Any]
    """Arguments of the trainer, without secrets and paths of one machine."""
    log: Sequence[Mapping[str, Any]]
    """Every entry of the trainer's log."""
    manifest: Mapping[str, Any]
    """Versions, seed, digests of data and links, hardware, time."""

    def __post_init__(self) -> None:
        if not self.loop.isidentifier() or not self.loop.isascii():
            raise DataError(f"loop {self.loop!r} names a folder; use letters, digits and _")


@dataclass(frozen=True)
class Score:
    """A measured result, for the model card.

    Example:
        `system.save_pretrained("team", scores=[lm.Score("exact_match", 0.71, n=500, data="MATH")])`

    Raises:
        DataError: a number is not finite, or `n` is below 1.
    """

    metric: str
    """Name of the metric."""
    value: float
    """Value of the metric."""
    n: int | None = None
    """Number of samples; a share of so many has a 95 % interval (Wilson's)."""
    low: float | None = None
    """An interval of your own."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    data: str = ""
    """What it was measured on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How: rounds, tokens, seeds."""

    def __post_init__(self) -> None:
        numbers = [self.value, *(x for x in (self.low, self.high) if x is not None)]
        if not all(math.isfinite(number) for number in numbers):
            raise DataError(f"score {self.metric!r}: {self.value} is not a finite number")
        if self.n is not None and self.n < 1:
            raise DataError(f"score {self.metric!r}: n is {self.n}; give at least 1, or none")

"""Prune: drop steps whose result is not used."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan import Decode, Step

__all__ = ["prune"]


def prune(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Backward liveness from the final decode.

    Requires: values are defined before use. Ensures: no dead step; the final decode is last.
    """
    live: set[str] = set()
    kept: list[Step] = []
    for step in reversed(steps):
        if step.output in live or (isinstance(step, Decode) and step.final):
            kept.append(step)
            live.update(step.reads)
    return tuple(reversed(kept))

"""Gradient: which links have a differentiable path to the final decode."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan import Decode, Step, Transfer, reads

__all__ = ["differentiable_links"]


def differentiable_links(steps: Sequence[Step]) -> frozenset[str]:
    """Ids of links on a path of latents to the final decode; text in between cuts a path."""
    reached: set[str] = set()
    links: set[str] = set()
    for step in reversed(steps):
        if isinstance(step, Decode):
            reached.update(reads(step) if step.final else ())
        elif step.output in reached:
            reached.update(reads(step))
            links.add(step.inner)
            if isinstance(step, Transfer):
                links.add(step.outer)
    return frozenset(links)

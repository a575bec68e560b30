"""Gradient: which links have a differentiable path to the final decode."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan import Decode, LinkPlan, Rollout, Step, Transfer

__all__ = ["differentiable_links"]


def differentiable_links(steps: Sequence[Step], table: Sequence[LinkPlan]) -> frozenset[str]:
    """Ids of links on a path of latents to the final decode; text in between cuts a path.

    An inner link is on it where a state that it made is fed again, or where it maps what an outer
    link reads.
    """
    reading_states = {link.id for link in table if "states" in link.needs}
    reached: set[str] = set()
    links: set[str] = set()
    for step in reversed(steps):
        if isinstance(step, Decode):
            reached.update(step.reads if step.final else ())
        elif step.output in reached:
            reached.update(step.reads)
            if isinstance(step, Transfer):
                links.add(step.outer)
            if _maps(step, reading_states):
                links.add(step.inner)
    return frozenset(links)


def _maps(step: Rollout | Transfer, reading_states: set[str]) -> bool:
    """Whether a step applies its inner link."""
    if isinstance(step, Rollout):
        return step.latent_steps > 1
    return step.outer not in reading_states

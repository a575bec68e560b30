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
            links.update(_applied(step, reading_states))
    return frozenset(links)


def _applied(step: Step, reading_states: set[str]) -> list[str]:
    """The links whose outputs a step's value is made of."""
    if isinstance(step, Rollout) and step.latent_steps < 2:
        return []  # its states come from the prompt alone
    if isinstance(step, Transfer) and step.outer in reading_states:
        return [step.outer]
    return list(step.links)

"""Gradient: which links have a differentiable path to the final decode."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan import Decode, LinkPlan, Rollout, Step, Transfer

__all__ = ["differentiable_links"]


def differentiable_links(steps: Sequence[Step], table: Sequence[LinkPlan]) -> frozenset[str]:
    """Ids of links on a latent path to the final decode; a text edge breaks a path.

    An inner link is on such a path if its output is fed back to the model or read by an outer link.
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
    """The links whose outputs contribute to a step's value."""
    if isinstance(step, Rollout) and step.latent_steps < 2:
        return []  # its states depend on the prompt only
    if isinstance(step, Transfer) and step.outer in reading_states:
        return [step.outer]
    return list(step.links)

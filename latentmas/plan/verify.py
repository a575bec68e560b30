"""Invariants of a plan's steps; checked after compiling and whenever a plan is read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentmas.errors import PlanError
from latentmas.plan.backbone import PlanBackbone
from latentmas.plan.links import LinkPlan
from latentmas.plan.steps import Decode, Step
from latentmas.spec import GraphSpec

__all__ = ["verify_links", "verify_steps"]


def verify_steps(steps: Sequence[Step], links: Sequence[LinkPlan], graph: GraphSpec) -> None:
    """Check that a plan can be executed from top to bottom.

    Ensures: each value is defined once and before use; no step is dead; there is one final decode,
    the last step, by the output agent; all named links and agents exist.

    Raises:
        PlanError: An invariant does not hold; the message names the first.
    """
    known_links = {link.id for link in links}
    agents = {agent.name for agent in graph.agents}
    made = {source.name for source in graph.text_sources}
    for index, step in enumerate(steps):
        if step.agent not in agents:
            raise PlanError(f"step {index}: no agent {step.agent!r}")
        for name in step.reads:
            if name not in made:
                raise PlanError(f"step {index}: value {name!r} is used before it is defined")
        if step.output in made:
            raise PlanError(f"step {index}: value {step.output!r} is defined twice")
        made.add(step.output)
        unknown = set(step.links) - known_links
        if unknown:
            raise PlanError(f"step {index}: no link {sorted(unknown)[0]!r}")
    _verify_end(steps, graph)


def verify_links(
    links: Sequence[LinkPlan], backbones: Mapping[str, PlanBackbone], graph: GraphSpec
) -> None:
    """Check that the links fit the backbones, and that every agent has one.

    Raises:
        PlanError: A link does not fit or is missing; the message names the first.
    """
    for agent in graph.agents:
        if agent.backbone not in backbones:
            raise PlanError(f"agent {agent.name!r}: no backbone {agent.backbone!r}")
    if len({link.id for link in links}) < len(links):
        raise PlanError("two links have the same id")
    for link in links:
        for key, width in ((link.source, link.in_dim), (link.target, link.out_dim)):
            if key not in backbones:
                raise PlanError(f"link {link.id}: no backbone {key!r}")
            own = backbones[key].info.hidden_size
            if own != width:
                raise PlanError(f"link {link.id}: width {width} for {key!r}, whose width is {own}")
        if not link.users:
            raise PlanError(f"link {link.id}: nothing uses it")


def _verify_end(steps: Sequence[Step], graph: GraphSpec) -> None:
    finals = [step for step in steps if isinstance(step, Decode) and step.final]
    if len(finals) != 1 or steps[-1] is not finals[0]:
        raise PlanError("the last step, and no other, must be the final decode")
    if graph.output != (finals[0].agent,):
        raise PlanError(f"the final decode belongs to {finals[0].agent!r}, not to the output agent")
    used = {name for step in steps for name in step.reads}
    for index, step in enumerate(steps[:-1]):
        if step.output not in used:
            raise PlanError(f"step {index}: nothing uses {step.output!r}")

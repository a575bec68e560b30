"""The turns of a plan that messages come from."""

from __future__ import annotations

from typing import NamedTuple

from latentmas.training.speech import Speech, Use

__all__ = ["SenderStep", "find_turns"]


class SenderStep(NamedTuple):
    """An agent that rolls, in one round."""

    agent: str
    inner: str
    round: int
    steps: int
    """Latent steps, K."""
    uses: list[Use]
    """The edges that hear of it."""


def find_turns(speech: Speech) -> list[SenderStep]:
    """The turns that messages come from, in the order of the plan."""
    turns: dict[tuple[str, int], SenderStep] = {}
    graph = speech.system.plan.graph
    for use in speech.uses:
        key = use.edge.source, use.round
        steps = graph.steps_of(graph.agent(use.edge.source))
        turns.setdefault(key, SenderStep(key[0], use.inner, use.round, steps, [])).uses.append(use)
    return list(turns.values())

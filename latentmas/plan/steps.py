"""The steps of a plan: a flat, unrolled list. Values are named, so each step is plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from latentmas.spec import Frozen

__all__ = ["MAX_LATENT_STEPS", "Decode", "Rollout", "Step", "Transfer", "rollouts_together"]

MAX_LATENT_STEPS = 4096


class _Turn(Frozen):
    agent: str
    round: int = Field(ge=1)
    """1..R."""
    group: int = Field(ge=0)
    """Steps of one round and group do not depend on each other."""
    inputs: dict[str, str]
    """Slot of the prompt → value that fills it. Slots that are empty this round are left out."""
    output: str
    """Name of the value made."""


class Rollout(_Turn):
    """K latent steps of one agent; yields its raw states h_BKD."""

    op: Literal["rollout"] = "rollout"
    inner: str
    """Id of the inner link."""
    latent_steps: int = Field(ge=0, le=MAX_LATENT_STEPS)
    """K."""


class Decode(_Turn):
    """Text generation by one agent."""

    op: Literal["decode"] = "decode"
    final: bool
    """The team's answer; others are the source of text edges."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens written; None takes the default, unless a run sets a limit."""


class Transfer(Frozen):
    """An outer link on an edge: message_BKD = outer(inner(h_BKS))."""

    op: Literal["transfer"] = "transfer"
    edge: str
    agent: str
    """The sender."""
    target: str
    """The receiver."""
    round: int = Field(ge=1)
    """The round that made the states."""
    group: int = Field(ge=0)
    inner: str
    outer: str
    source: str
    """Value that holds the sender's states."""
    output: str
    """`round1.planner->critic`."""


Step = Annotated[Rollout | Transfer | Decode, Field(discriminator="op")]


def rollouts_together(
    steps: Sequence[Step], index: int, share: Callable[[str, str], bool]
) -> list[int]:
    """Indices of the rollouts that can be one batch with the one at `index`, itself first.

    They are of one round and group, on one backbone, with equally many latent steps.

    Args:
        steps: of the plan.
        index: of the step asked for; no rollout gives no indices.
        share: whether two agents run on one backbone.
    """
    first, found = steps[index], list[int]()
    if not isinstance(first, Rollout):
        return found
    for i, step in enumerate(steps[index:], start=index):
        if not isinstance(step, Rollout) or (step.round, step.group) != (first.round, first.group):
            break
        if step.latent_steps == first.latent_steps and share(first.agent, step.agent):
            found.append(i)
    return found

"""The steps of a plan: a flat, unrolled list. Values are named, so each step is plain data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentmas.spec import Frozen

__all__ = ["MAX_LATENT_STEPS", "Decode", "Rollout", "Step", "Transfer"]

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
    """Most tokens written; None takes the run's."""


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

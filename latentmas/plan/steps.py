"""The steps of a plan: a flat, unrolled list.

Each step declares the values it reads, the value it produces and the links it applies; values have
names, so steps are plain data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from latentmas.spec import EdgeSpec, Frozen

__all__ = [
    "MAX_LATENT_STEPS",
    "Combine",
    "Decode",
    "Rollout",
    "Step",
    "Transfer",
    "Value",
    "combined_in",
    "edge_labels",
    "latent_rows",
    "message_on",
    "rollouts_together",
    "states_of",
    "text_of",
]

MAX_LATENT_STEPS = 4096


class Value(NamedTuple):
    """A named value that one step produces and later steps read."""

    name: str
    """Unique in a plan: `round1.planner`, `round1.planner.text`, `round1.planner->critic`."""
    round: int
    """The round that produced it, 1..R."""
    agent: str
    """The agent that made it."""
    edge: str | None = None
    """Id of the edge that carries it; None for an agent's own states or text."""

    @property
    def label(self) -> str:
        """The name without the round: the same for corresponding values of all rounds."""
        return self.name.removeprefix(f"round{self.round}.")


def states_of(agent: str, round: int) -> Value:
    """The raw states of an agent's rollout."""
    return Value(f"round{round}.{agent}", round, agent)


def text_of(agent: str, round: int) -> Value:
    """The text that an agent decodes."""
    return Value(f"round{round}.{agent}.text", round, agent)


def combined_in(agent: str, slot: str, round: int) -> Value:
    """What several messages become that fill one slot of an agent."""
    return Value(f"round{round}.{agent}.{slot}.combined", round, agent)


def edge_labels(edges: Iterable[EdgeSpec]) -> dict[str, str]:
    """Edge id → `planner->critic`, with the slot only if several edges connect the two agents."""
    edges = tuple(edges)
    pairs = Counter((edge.source, edge.target) for edge in edges)
    return {
        edge.id: f"{edge.source}->{edge.target}"
        + (f".{edge.slot}" if pairs[edge.source, edge.target] > 1 else "")
        for edge in edges
    }


def message_on(edge: EdgeSpec, label: str, round: int) -> Value:
    """The value carried by an edge with this label."""
    return Value(f"round{round}.{label}", round, edge.source, edge.id)


class _ModelStep(Frozen):
    """A step that runs an agent's backbone over a prompt."""

    agent: str
    round: int = Field(ge=1)
    """1..R."""
    group: int = Field(ge=0)
    """Steps of one round and group do not depend on each other."""
    inputs: dict[str, str]
    """Slot of the prompt → value that fills it. Slots that are empty this round are omitted."""
    output: str
    """Name of the value produced."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the step reads."""
        return tuple(self.inputs.values())

    @property
    def value(self) -> Value:
        """The value that the step produces."""
        return Value(self.output, self.round, self.agent)


class Rollout(_ModelStep):
    """K latent steps of one agent; yields its raw states h_BKD."""

    op: Literal["rollout"] = "rollout"
    inner: str
    """Id of the inner link."""
    latent_steps: int = Field(ge=0, le=MAX_LATENT_STEPS)
    """K."""

    @property
    def links(self) -> tuple[str, ...]:
        """Ids of the links that the step applies."""
        return (self.inner,)

    def rows(self, known: Mapping[str, int]) -> int:
        """K."""
        return self.latent_steps


class Decode(_ModelStep):
    """Text generation by one agent."""

    op: Literal["decode"] = "decode"
    final: bool
    """Whether this is the team's answer; other decodes feed text edges."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum number of tokens. None: the default, unless a run sets a limit."""

    @property
    def links(self) -> tuple[str, ...]:
        """None."""
        return ()

    def rows(self, known: Mapping[str, int]) -> None:
        """None, since it produces text."""


class Transfer(Frozen):
    """An outer link on an edge: message_BKD = outer(inner(h_BKS))."""

    op: Literal["transfer"] = "transfer"
    edge: str
    """Id of the edge."""
    agent: str
    """The sender."""
    target: str
    """The receiver."""
    round: int = Field(ge=1)
    """The round that produced the states."""
    group: int = Field(ge=0)
    inner: str
    outer: str
    source: str
    """Value that holds the sender's states."""
    output: str
    """`round1.planner->critic`."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the step reads."""
        return (self.source,)

    @property
    def links(self) -> tuple[str, ...]:
        """Ids of the links that the step applies."""
        return (self.inner, self.outer)

    @property
    def value(self) -> Value:
        """The value that the step produces."""
        return Value(self.output, self.round, self.agent, self.edge)

    def rows(self, known: Mapping[str, int]) -> int:
        """Same number of rows as the source."""
        return known[self.source]


class Combine(Frozen):
    """Combines the messages of several edges into the one that fills a slot."""

    op: Literal["combine"] = "combine"
    agent: str
    """The receiver."""
    round: int = Field(ge=1)
    """The round in which the receiver reads it."""
    group: int = Field(ge=0)
    slot: str
    how: Literal["concat", "mean"]
    sources: tuple[str, ...] = Field(min_length=2)
    """Values that hold the messages, in the order of the edges."""
    output: str
    """`round1.summarizer.notes.combined`."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the step reads."""
        return self.sources

    @property
    def links(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def value(self) -> Value:
        """The value that the step produces."""
        return Value(self.output, self.round, self.agent)

    def rows(self, known: Mapping[str, int]) -> int | None:
        """Sum of the sources' rows, or those of the longest source; None for texts."""
        rows = [known[name] for name in self.sources if name in known]
        if not rows:
            return None
        return sum(rows) if self.how == "concat" else max(rows)


Step = Annotated[Rollout | Transfer | Combine | Decode, Field(discriminator="op")]


def latent_rows(steps: Iterable[Step]) -> dict[str, int]:
    """Value → number of its rows (K); texts are omitted."""
    found: dict[str, int] = {}
    for step in steps:
        if (rows := step.rows(found)) is not None:
            found[step.output] = rows
    return found


def rollouts_together(
    steps: Sequence[Step], index: int, share: Callable[[str, str], bool]
) -> list[int]:
    """Indices of the rollouts that can share a batch with the one at `index`, itself first.

    They share the round, the group, the backbone and the number of latent steps.

    Args:
        steps: Steps of the plan.
        index: Index of the step; if it is not a rollout, the result is empty.
        share: Function that returns whether two agents run on the same backbone.
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

"""What a training loop is to the registry: how it is made, and when it is of use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from latentmas.plan import LinkPlan, Plan

if TYPE_CHECKING:
    from latentmas.training.config import LinkConfig
    from latentmas.training.trainer.trainer import LinkTrainer

__all__ = ["Choice", "Loop", "Start", "listed"]

_SHOWN = 3


@dataclass(frozen=True)
class Start:
    """A team before its training, and the rows that it is to learn from."""

    plan: Plan
    """Plan of the team."""
    fields: Collection[str]
    """Fields that every row has."""
    random: Collection[str]
    """Ids of links that start at random: with weights, not trained before, and of a kind that does
    not go through the vocabulary."""
    answer_field: str = "answer"
    """Field with the answer."""
    targets: Mapping[str, str] | str | None = None
    """Field with each agent's own text, as the user names them."""
    adapters: bool = False
    """Whether adapters of agents are to be trained."""

    def links(self, role: str) -> list[LinkPlan]:
        """Links of a role that have weights."""
        return [link for link in self.plan.links if link.role == role and link.n_parameters]

    @property
    def deepest(self) -> int:
        """Largest number of latent steps of an agent that sends messages."""
        graph = self.plan.graph
        senders = {edge.source for edge in graph.edges}
        return max((graph.steps_of(a) for a in graph.agents if a.name in senders), default=0)

    @property
    def rolls_from_random(self) -> bool:
        """Whether inner links at a random start read their own outputs.

        The rollout loop then begins with them, on kept rollouts, and needs no loop before it.
        """
        inner = {link.id for link in self.links("inner")}
        return self.deepest > 1 and not inner.isdisjoint(self.random)

    def texts(self) -> dict[str, str]:
        """Field with each agent's own text, of agents that have one of their own."""
        agents = [agent.name for agent in self.plan.graph.agents]
        if isinstance(self.targets, str):
            return dict.fromkeys(agents, self.targets)
        inputs = self.plan.graph.inputs
        own = {name: name for name in agents if name in self.fields and name not in inputs}
        return own | dict(self.targets or {})


@dataclass(frozen=True)
class Choice:
    """Whether a loop is of use for a team, and why."""

    runs: bool
    """Whether the loop runs."""
    reason: str
    """Reason for the choice, in one sentence."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the loop's configuration that this team needs."""
    steps: int | None = None
    """Optimizer steps by default for this team; None: the loop's."""
    epochs: int | None = None
    """Maximum number of passes over the data by default for this team; None: the loop's."""


class Loop(ABC):
    """A way to train links, as an entry of the registry `loops`.

    Subclasses are registered under the name of their file and are never instantiated. Their modules
    import trainers inside `parts`, so that help texts need no torch.
    """

    summary: ClassVar[str]
    """What it does, in one sentence: the help of its command."""
    order: ClassVar[int]
    """Place among the loops that a team goes through: inner 10, edge 20, rollout 30, outer 40."""
    steps: ClassVar[int]
    """Optimizer steps by default."""
    epochs: ClassVar[int]
    """Maximum number of passes over the data by default: small data ends the training earlier."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Options of its command beside those of all loops: targets, train_links, train_adapters,
    rounds, recipe and passes (fields of its configuration) and dry_run (its trainer has the
    method)."""
    trains_adapters: ClassVar[bool] = False
    """Whether it can train agents' adapters, also where no link is trained."""

    @staticmethod
    @abstractmethod
    def parts() -> tuple[Callable[..., LinkTrainer], type[LinkConfig]]:
        """Its trainer, which is called like `InnerTrainer`, and the class of its configuration."""

    @staticmethod
    @abstractmethod
    def choose(start: Start) -> Choice:
        """Whether a team that starts like this needs the loop."""


def listed(names: Collection[str]) -> str:
    """Names for a sentence, the first few of them."""
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

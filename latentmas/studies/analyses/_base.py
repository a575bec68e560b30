"""What an analysis is given, and what it returns.

Shapes: `N` questions, `K` message rows, `D` width of the receiver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from latentmas.backbones import LoadedBackbone, outside_ids
from latentmas.errors import LatentMASError
from latentmas.plan import Plan, Transfer
from latentmas.runtime import System
from latentmas.studies.tabulate import Sheet
from latentmas.viz import Curves

__all__ = ["Analysis", "Curves", "Finding", "Material", "Message"]


class Message(NamedTuple):
    """What passes along an edge in one round, for all questions."""

    step: Transfer
    """The step that makes it."""
    edge: str
    """`planner->critic`."""
    x_NKD: Tensor
    """The messages. Rows of zeros were not sent."""
    receiver: LoadedBackbone
    """Model that reads it."""

    def sent(self) -> Tensor:
        """Which rows were sent, (N, K)."""
        return self.x_NKD.ne(0).any(dim=-1)


@dataclass(frozen=True)
class Material:
    """A team and questions whose correct answers are known."""

    system: System
    """The team."""
    plan: Plan
    """Its plan at the depth that is analysed."""
    rows: Sequence[Mapping[str, Any]]
    """N samples with the inputs of the graph."""
    answers: Sequence[str]
    """Their correct answers."""
    seed: int = 0
    """Seed of random directions, resamples and permutations."""
    batch_size: int = 8
    """Number of questions that run together."""

    @property
    def transfers(self) -> list[Transfer]:
        """Steps that make latent messages, in the order of the plan.

        Raises:
            LatentMASError: there are none.
        """
        steps = [step for step in self.plan.steps if isinstance(step, Transfer)]
        if not steps:
            raise LatentMASError(
                f"graph {self.plan.graph.name!r} sends no latent messages that could be analysed; "
                "its edges carry text"
            )
        return steps

    @cached_property
    def messages(self) -> list[Message]:
        """All latent messages of one run, in the order of the plan.

        Raises:
            LatentMASError: the team sends no latent messages.
        """
        steps = self.transfers
        found = self.system.run(
            self.rows,
            rounds=self.plan.graph.rounds,
            max_new_tokens=1,
            batch_size=self.batch_size,
            record=("messages",),
        ).messages
        return [
            Message(
                step,
                step.value.label,
                found[step.output].float(),
                self.system.backbone_of(step.target),
            )
            for step in steps
        ]

    def batches(self) -> Iterator[tuple[Sequence[Mapping[str, Any]], Sequence[str]]]:
        """Questions and answers, `batch_size` at a time."""
        for begin in range(0, len(self.rows), self.batch_size):
            part = slice(begin, begin + self.batch_size)
            yield self.rows[part], self.answers[part]


def answer_tokens(backbone: LoadedBackbone, answer: str) -> list[list[int]]:
    """Ways to write an answer in a model's tokens: at the start of a text, and within one."""
    ways = [outside_ids(backbone.tokenizer, text) for text in (answer, f" {answer}")]
    return [ids for i, ids in enumerate(ways) if ids and ids not in ways[:i]]


@dataclass(frozen=True)
class Finding:
    """What an analysis found."""

    name: str
    """Name of the analysis."""
    title: str
    """Heading."""
    verdict: Sequence[str]
    """What came out, a sentence each, with numbers and controls."""
    sheets: Mapping[str, Sheet]
    """Caption → table."""
    curves: Sequence[Curves] = ()
    """Charts."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Everything that was measured, as plain data."""

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {line}" for line in self.verdict)])


class Analysis(ABC):
    """A way to look at messages, as an entry of the registry `analyses`; never instantiated."""

    title: ClassVar[str]
    """Heading of its results."""
    summary: ClassVar[str]
    """What it measures, in one sentence."""

    @staticmethod
    @abstractmethod
    def run(material: Material) -> Finding:
        """Analyse a team.

        Raises:
            DataError: there are too few questions.
            LatentMASError: the team sends no latent messages.
        """

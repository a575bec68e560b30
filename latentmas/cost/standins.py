"""Stand-ins for the parts of a team: shapes without weights.

A stand-in keeps one number for each position in place of D of them, since nothing in the runtime
depends on D; what a position takes is known from the backbone's facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.cost.prompts import EstimatingTokenizer, Field, WritingTokenizer, mark
from latentmas.links import Link, LinkReads
from latentmas.plan import LinkPlan, Plan, PlanBackbone
from latentmas.runtime.loading.init_weights import meta_link
from latentmas.spec import TextFunction
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["BackboneStandIn", "LinkStandIn", "TeamStandIn", "counted_team", "estimated_team"]

Applied = Callable[["LinkStandIn", int], None]
"""Told of a link and the rows that it is applied to."""


class BackboneStandIn(LoadedBackbone):
    """A backbone's facts and tokenizer; its embeddings are ones, one number a position."""

    def __init__(
        self, key: str, planned: PlanBackbone, tokenizer: Any, begin_ids: list[int]
    ) -> None:
        """Facts alone; nothing is refused for its length, as the stand-in's context has no end."""
        self.key = key
        info = planned.info.model_copy(update={"max_positions": None})
        self.planned = planned.model_copy(update={"info": info})
        self.tokenizer = tokenizer
        self.begin_ids = begin_ids
        self.workspace = {}

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the ones that it returns."""
        return torch.float32

    @property
    def pad_id(self) -> int:
        """Any."""
        return 0

    def embed(self, ids: Tensor) -> Tensor:
        """Ones, `(…)` to `(…, 1)`."""
        return torch.ones(*ids.shape, 1)


class LinkStandIn:
    """A link's kind, and what it reads; what it makes of states are the states."""

    def __init__(self, planned: LinkPlan, kind: type[Link], reads: LinkReads, told: Applied):
        self.planned, self.reads, self._told = planned, reads, told
        self.needs, self.shortens = kind.needs, kind.shortens

    def apply_to(self, h_BKS: Tensor) -> Tensor:
        """Tell of the rows; shapes stay."""
        self._told(self, h_BKS[..., 0].numel())
        return h_BKS

    message = apply_to


@dataclass
class TeamStandIn:
    """What the interpreter takes for a team."""

    backbones: Mapping[str, BackboneStandIn]
    """By agent."""
    links: Mapping[str, LinkStandIn]
    """By id."""
    text_functions: dict[str, TextFunction]
    tools: dict[str, Tool]

    def backbone_of(self, agent: str) -> BackboneStandIn:
        """The stand-in for an agent's backbone."""
        return self.backbones[agent]

    def link(self, id: str) -> Any:
        """The stand-in for a link."""
        return self.links[id]


def estimated_team(
    plan: Plan, applied: Applied, input_tokens: int | Mapping[str, int], characters: float
) -> tuple[TeamStandIn, list[dict[str, str]]]:
    """A team known from its plan alone, and one row that stands for all samples.

    Args:
        plan: Plan whose parts to stand in for.
        applied: Function that is called with each use of a link.
        input_tokens: Number of tokens of each sample field and text source, or numbers by name.
        characters: Number of characters of templates and constant texts per token.
    """
    tokenizer = EstimatingTokenizer(characters)
    backbones: dict[str, BackboneStandIn] = {}
    for key, planned in plan.backbones.items():
        backbones |= dict.fromkeys(planned.agents, BackboneStandIn(key, planned, tokenizer, []))

    def field(name: str) -> Field:
        tokens = input_tokens if isinstance(input_tokens, int) else input_tokens.get(name, 0)
        return Field(mark(tokens))

    texts = {source.name: field(source.name) for source in plan.graph.text_sources}
    team = TeamStandIn(
        backbones,
        _links(plan, applied),
        {name: lambda _, text=text: text for name, text in texts.items()},  # type: ignore[misc]
        {tool: _tool for agent in plan.graph.agents for tool in agent.tools},
    )
    return team, [{name: field(name) for name in plan.graph.inputs}]


def counted_team(plan: Plan, applied: Applied, system: System) -> TeamStandIn:
    """A team with the tokenizers, text sources and tools of a loaded one.

    Args:
        plan: Plan with the rounds and latent steps in question.
        applied: Function that is called with each use of a link.
        system: Loaded system.
    """
    standins: dict[int, BackboneStandIn] = {}
    for agent in plan.graph.agents:
        real = system.backbone_of(agent.name)
        if id(real) not in standins:
            tokenizer = WritingTokenizer(real.tokenizer)
            standins[id(real)] = BackboneStandIn(
                agent.backbone, plan.backbones[agent.backbone], tokenizer, real.begin_ids
            )
    return TeamStandIn(
        {agent.name: standins[id(system.backbone_of(agent.name))] for agent in plan.graph.agents},
        _links(plan, applied),
        system.text_functions,
        system.tools,
    )


def _links(plan: Plan, applied: Applied) -> dict[str, LinkStandIn]:
    """The links of a plan; a kind is asked once for all links of one form."""
    known: dict[object, tuple[type[Link], LinkReads]] = {}
    links = {}
    for planned in plan.links:
        form = planned.model_copy(update={"id": "", "role": "outer", "users": ()})
        key = form.model_dump_json()
        if key not in known:
            infos = (plan.backbones[name].info for name in (planned.source, planned.target))
            sketch = meta_link(planned)
            known[key] = type(sketch), sketch.reads(*infos)
        links[planned.id] = LinkStandIn(planned, *known[key], applied)
    return links


def _tool(text: str) -> str:
    """A tool that is never called."""
    return text

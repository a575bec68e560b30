"""Controls: what a team's score is worth without its messages, its training or its latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.plan import Decode, Rollout, Transfer
from latentmas.prompts import prompt_variables
from latentmas.runtime import System, load_beside
from latentmas.spec import Graph

__all__ = ["CONTROLS", "Control", "make_control"]


@dataclass(frozen=True)
class Control:
    """A system to compare a team with."""

    system: System
    edit: Callable[[str, Any], Any] | None = None
    """Replaces messages on their way."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Further inputs of its graph, the same for all rows."""
    shuffles: bool = False
    """Whether rows get the messages of others, so that it matters which ones run together."""


def make_control(name: str, system: System, *, twin_tokens: int | None = None) -> Control:
    """A control of a team, on the same loaded backbones.

    Args:
        name: one of `CONTROLS`.
        system: the team.
        twin_tokens: maximum number of tokens that the agents of the text twin write per edge.

    Raises:
        UnknownNameError: the name is unknown.
        LatentMASError: the team has no latent edge for the control to act on.
    """
    if name not in CONTROLS:
        raise UnknownNameError("control", name, CONTROLS)
    if name == "twin":
        return Control(system.text_twin(max_new_tokens=twin_tokens))
    if name == "alone":
        return _alone(system)
    if not any(isinstance(step, Transfer) for step in system.plan.steps):
        raise LatentMASError(
            f"control {name!r} needs a latent edge, and this team has none; its controls are "
            "alone and twin"
        )
    if name == "untrained":
        return Control(load_beside(system, Graph.from_spec(system.plan.graph)))
    if name == "zeroed":
        return Control(system, edit=_zeroed)
    return Control(system, edit=_shuffled, shuffles=True)


CONTROLS: dict[str, str] = {
    "alone": "the output agent alone: its own prompt with every message left empty",
    "twin": "the same graph talking in text",
    "zeroed": "every latent message replaced with zeros",
    "shuffled": "every latent message replaced with that of another row",
    "untrained": "the team with its links as they are before training",
}
"""Name → description."""


def _zeroed(name: str, message_BKD: Tensor) -> Tensor:
    return torch.zeros_like(message_BKD)


def _shuffled(name: str, message_BKD: Tensor) -> Tensor:
    if len(message_BKD) < 2:
        raise LatentMASError("a batch of one row has no message of another row to give")
    return message_BKD.roll(1, 0)


def _alone(system: System) -> Control:
    """The output agent in a graph of its own, where the slots of messages are empty inputs."""
    spec, output = system.plan.graph, system.plan.output
    sources = {source.name for source in spec.text_sources}
    filled = {
        slot: value
        for step in system.plan.steps
        if isinstance(step, Rollout | Decode) and step.agent == output
        for slot, value in step.inputs.items()
    }
    slots = sorted(slot for slot, value in filled.items() if value not in sources)
    agent = spec.agent(output)
    read = prompt_variables(agent)
    graph = Graph.from_spec(
        spec.replace(
            name=f"{spec.name}-alone",
            inputs=[*(name for name in spec.inputs if name in read), *slots],
            rounds=1,
            agents=[agent.model_dump()],
            edges=[
                edge.model_dump()
                for edge in spec.edges
                if edge.target == output and edge.source in sources
            ],
            backbones={k: v for k, v in spec.backbones.items() if k == agent.backbone},
        )
    )
    return Control(load_beside(system, graph), inputs=dict.fromkeys(slots, ""))

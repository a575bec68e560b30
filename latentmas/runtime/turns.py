"""A model step about to run: which agent reads what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.plan import Decode, Plan, Rollout, Transfer
from latentmas.runtime.calling import tool_schemas
from latentmas.runtime.packing import Packed, pack
from latentmas.runtime.prefixes import Prefix
from latentmas.runtime.reuse import find_prefix
from latentmas.runtime.team import Team

__all__ = ["Turn", "make_turn"]


class Turn(NamedTuple):
    """A model step about to run: who reads what."""

    step: Rollout | Decode
    backbone: LoadedBackbone
    prompt: Packed


def make_turn(
    team: Team,
    plan: Plan,
    step: Rollout | Decode,
    samples: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    prefixes: dict[str, Prefix] | None,
    *,
    texts: Mapping[str, list[str]] | None = None,
) -> Turn:
    """Render, embed and splice the prompts of a step.

    Args:
        team: whose backbones, links and tools.
        plan: being walked.
        step: the turn's.
        samples: B mappings of sample fields.
        values: made so far, by name.
        prefixes: beginnings of prompts by agent, looked up and added to; None: nothing is reused.
        texts: slot → B texts that take the place of those there.
    """
    backbone, agent = team.backbone_of(step.agent), plan.graph.agent(step.agent)
    inputs = {slot: values[name] for slot, name in step.inputs.items()} | dict(texts or {})
    messages = {slot: value for slot, value in inputs.items() if isinstance(value, Tensor)}
    said = {slot: value for slot, value in inputs.items() if not isinstance(value, Tensor)}
    scopes = [
        {name: sample[name] for name in plan.graph.inputs}
        | {slot: text[row] for slot, text in said.items()}
        for row, sample in enumerate(samples)
    ]
    room = step.latent_steps if isinstance(step, Rollout) else 1
    tools = tool_schemas(agent, team.tools)
    shortened = _shortened(team, plan, step)
    prompt = pack(backbone, agent, scopes, messages, room=room, tools=tools, shortened=shortened)
    if prefixes is not None and not tools:
        prefix = find_prefix(plan, step, backbone, samples, values, prefixes, prompt.ids_BT)
        prompt = prompt._replace(prefix=prefix)
    return Turn(step, backbone, prompt)


def _shortened(team: Team, plan: Plan, step: Rollout | Decode) -> set[str]:
    """Slots whose links may send fewer than K rows."""
    read = set(step.inputs.values())
    makers = (made for made in plan.steps if made.output in read)
    short = {
        made.output
        for made in makers
        if isinstance(made, Transfer) and team.link(made.outer).shortens
    }
    return {slot for slot, name in step.inputs.items() if name in short}

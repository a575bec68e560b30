"""What each step of a plan runs on: prompts rendered, embedded and spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from latentmas.engine import Prefix, StepInput, Team, find_prefix, pack
from latentmas.generation import tool_schemas
from latentmas.plan import Combine, Decode, Plan, Rollout, Transfer

__all__ = ["make_step_input"]


def make_step_input(
    team: Team,
    plan: Plan,
    step: Rollout | Decode,
    samples: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    prefixes: dict[str, Prefix] | None,
    *,
    texts: Mapping[str, list[str]] | None = None,
) -> StepInput:
    """Render, embed and splice the prompts of a step.

    Args:
        team: whose backbones, links and tools.
        plan: Plan that is walked.
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
    return StepInput(step, backbone, prompt)


def _shortened(team: Team, plan: Plan, step: Rollout | Decode) -> set[str]:
    """Slots whose links may send fewer than K rows."""
    short: set[str] = set()
    for made in plan.steps:
        if isinstance(made, Transfer):
            shortens = team.link(made.outer).shortens
        else:
            shortens = isinstance(made, Combine) and not short.isdisjoint(made.sources)
        if shortens:
            short.add(made.output)
    return {slot for slot, name in step.inputs.items() if name in short}

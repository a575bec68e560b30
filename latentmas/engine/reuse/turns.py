"""Which part of a prompt an agent will read again in its next turn.

Shapes: `B` batch, `T` prompt positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.engine.packing import prompt_ids
from latentmas.engine.reuse.prefix import Prefix, shared_columns
from latentmas.plan import Decode, Plan, Rollout, latent_rows

__all__ = ["find_prefix"]


def find_prefix(
    plan: Plan,
    step: Rollout | Decode,
    backbone: LoadedBackbone,
    samples: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    known: dict[str, Prefix],
    ids_BT: Tensor | None,
) -> Prefix | None:
    """The prefix of a turn: the one that an earlier turn has left, else one for the next turn.

    Args:
        plan: Plan that is walked.
        step: Step of the turn.
        backbone: Backbone of its agent.
        samples: B mappings of sample fields.
        values: Values made so far.
        known: Prefixes by agent; a new one is added.
        ids_BT: Token ids of the turn's prompts.

    Returns:
        None when nothing is shared, or when gradients are on.
    """
    left = known.get(step.agent)
    if left is not None and left.begins(ids_BT):
        return left
    if ids_BT is None or torch.is_grad_enabled() or (after := _next_turn(plan, step)) is None:
        return None
    next_BT = _next_ids(plan, after, backbone, samples, values)
    columns = 0 if next_BT is None else shared_columns(ids_BT, next_BT)
    if not columns:
        return None
    known[step.agent] = Prefix(ids_BT[:, :columns])
    return known[step.agent]


def _next_turn(plan: Plan, step: Rollout | Decode) -> Rollout | Decode | None:
    """The turn of the same agent that comes next."""
    steps = iter(plan.steps)
    any(one is step for one in steps)  # as far as the turn itself
    own = (later for later in steps if later.agent == step.agent)
    return next((turn for turn in own if isinstance(turn, Rollout | Decode)), None)


def _next_ids(
    plan: Plan,
    after: Rollout | Decode,
    backbone: LoadedBackbone,
    samples: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
) -> Tensor | None:
    """Ids of a later turn's prompts; None when they hold a text that is not yet written."""
    graph, rows = plan.graph, latent_rows(plan.steps)
    written = {step.output for step in plan.steps if step.output not in rows}
    sizes: dict[str, int] = {}
    texts: dict[str, Any] = {}
    for slot, name in after.inputs.items():
        if name in written:
            return None
        if name in rows:
            sizes[slot] = rows[name]
        else:  # a text source has spoken before the first step
            texts[slot] = values[name]
    scopes = [
        {name: sample[name] for name in graph.inputs}
        | {slot: text[row] for slot, text in texts.items()}
        for row, sample in enumerate(samples)
    ]
    return prompt_ids(backbone, graph.agent(after.agent), scopes, sizes)

"""Which part of a prompt an agent will read again in its next turn.

Shapes: `B` batch, `T` prompt positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.plan import Decode, Plan, Rollout, Transfer
from latentmas.runtime.packing import prompt_ids
from latentmas.runtime.prefixes import Prefix, shared_columns

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
        plan: being walked.
        step: the turn.
        backbone: of its agent.
        samples: B mappings of sample fields.
        values: made so far.
        known: prefixes by agent; a new one is put there.
        ids_BT: of the turn's prompts.

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
    return next((turn for turn in own if not isinstance(turn, Transfer)), None)


def _next_ids(
    plan: Plan,
    after: Rollout | Decode,
    backbone: LoadedBackbone,
    samples: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
) -> Tensor | None:
    """Ids of a later turn's prompts; None when they hold a text that is not yet written."""
    graph, read = plan.graph, set(after.inputs.values())
    makers = {step.output: step for step in plan.steps if step.output in read}
    sizes: dict[str, int] = {}
    texts: dict[str, Any] = {}
    for slot, name in after.inputs.items():
        maker = makers.get(name)
        if maker is None:
            texts[slot] = values[name]
        elif isinstance(maker, Transfer):
            sizes[slot] = graph.steps_of(graph.agent(maker.agent))
        else:
            return None
    scopes = [
        {name: sample[name] for name in graph.inputs}
        | {slot: text[row] for slot, text in texts.items()}
        for row, sample in enumerate(samples)
    ]
    return prompt_ids(backbone, graph.agent(after.agent), scopes, sizes)

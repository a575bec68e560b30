"""Lengths of prompts as samples and tokenizers make them, for the cost model.

Shapes: `B` batch, `T` prompt positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from latentmas.engine import MESSAGE, prompt_ids, shared_columns
from latentmas.errors import DataError
from latentmas.generation import tool_schemas
from latentmas.plan import (
    Decode,
    Explanation,
    Hardware,
    Plan,
    Rollout,
    TokenLimit,
    Transfer,
    with_limits,
)
from latentmas.plan.explain import EXPLAINED, explain_plan
from latentmas.prompts import misused_variables

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["CountedPrompts", "explain_samples"]

Turn = Rollout | Decode


class CountedPrompts:
    """What `latentmas.plan.reading.Reading` asks, answered from the columns of a batch."""

    def __init__(
        self,
        system: System,
        plan: Plan,
        samples: Sequence[Mapping[str, Any]],
    ) -> None:
        """Take the batch.

        Args:
            system: whose tokenizers, text sources and tools.
            plan: whose turns, with limits on what agents write.
            samples: B mappings of sample fields.
        """
        self.system, self.plan, self.samples = system, plan, samples
        self._texts = system.outside_texts(samples)
        self._makers = {step.output: step for step in plan.steps}
        self._ids: dict[tuple[str, tuple[tuple[str, str], ...]], Tensor] = {}

    def positions(self, turn: Turn) -> int:
        """Columns of a turn's prompts, T."""
        return self.ids(turn).shape[1]

    def shared(self, first: Turn, later: Turn) -> int:
        """Leading columns without a message that two turns have in common."""
        return shared_columns(self.ids(first), self.ids(later))

    def repeated(self, first: Turn, later: Turn) -> int:
        """Columns of text, before and behind what differs, that two turns have in common."""
        before_BT, now_BT = self.ids(first), self.ids(later)
        width = min(before_BT.shape[1], now_BT.shape[1])
        same_T = (before_BT[:, :width] == now_BT[:, :width]).all(dim=0)
        head = int(same_T.long().cumprod(dim=0).sum())
        same_T = (before_BT[:, -width:] == now_BT[:, -width:]).all(dim=0).flip(0)
        tail = min(int(same_T.long().cumprod(dim=0).sum()), width - head)
        kept_BT = now_BT[:, [*range(head), *range(now_BT.shape[1] - tail, now_BT.shape[1])]]
        return int((kept_BT != MESSAGE).sum()) // len(kept_BT)

    def ids(self, turn: Turn) -> Tensor:
        """Ids of a turn's prompts, with marks where a message stands, or a text to come."""
        key = (turn.agent, tuple(sorted(turn.inputs.items())))
        if key not in self._ids:
            self._ids[key] = self._tokenise(turn)
        return self._ids[key]

    def _tokenise(self, turn: Turn) -> Tensor:
        graph, agent = self.plan.graph, self.plan.graph.agent(turn.agent)
        sizes: dict[str, int] = {}
        texts: dict[str, Sequence[str]] = {}
        for slot, name in turn.inputs.items():
            maker = self._makers.get(name)
            if isinstance(maker, Transfer):
                sizes[slot] = graph.steps_of(graph.agent(maker.agent))
            elif isinstance(maker, Decode):
                count = maker.max_new_tokens or 0
                if slot in misused_variables(agent):  # the template reads it as text
                    texts[slot] = [" a" * count] * len(self.samples)
                else:
                    sizes[slot] = count
            else:
                texts[slot] = [str(text) for text in self._texts[name]]
        scopes = [
            {name: sample[name] for name in graph.inputs}
            | {slot: text[row] for slot, text in texts.items()}
            for row, sample in enumerate(self.samples)
        ]
        tools = tool_schemas(agent, self.system.tools)
        return prompt_ids(self.system.backbone_of(turn.agent), agent, scopes, sizes, tools)


def explain_samples(
    system: System,
    plan: Plan,
    samples: Sequence[Mapping[str, Any]],
    hardware: str | Hardware,
    *,
    max_new_tokens: TokenLimit,
    executor: str,
) -> Explanation:
    """The cost of one batch of these samples; arguments as `System.explain`."""
    if not samples:
        raise DataError("explain takes at least one sample; Plan.explain needs none")
    plan = with_limits(plan, max_new_tokens)
    dtypes = {
        agent.backbone: str(system.backbone_of(agent.name).dtype).removeprefix("torch.")
        for agent in plan.graph.agents
    }
    return explain_plan(
        plan,
        hardware,
        batch=len(samples),
        input_tokens=0,
        max_new_tokens=max_new_tokens,
        dtype=dtypes,
        executor=executor if executor in EXPLAINED else "cached",
        counted=CountedPrompts(system, plan, samples),
    )

"""The inner loop's loss: inner(h_t) becomes the embedding of the next token.

Shapes: `D` width, `N` pairs of a state and the embedding that it is to become.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentmas.engine import answer_ids, pack
from latentmas.generation import tool_schemas
from latentmas.runtime import System
from latentmas.spec import TEXT, AgentSpec
from latentmas.training.data import Row
from latentmas.training.losses.regression import (
    Features,
    FeatureStore,
    mean_square,
    read_features,
    regression,
)
from latentmas.training.speech import put_text

__all__ = ["InnerLoss"]


class InnerLoss(nn.Module):
    """Regression of inner(h_t) to Emb(x_{t+1}) over each agent's own text (RecursiveMAS).

    Backbones read prompt and text teacher-forced, without gradients; slots hold the senders' texts.
    What they read is constant, so it is computed once per row and kept on the CPU; agents with one
    backbone, prompt and text share it.
    """

    def __init__(
        self,
        system: System,
        targets: Mapping[str, str],
        *,
        cosine_weight: float = 1.0,
        mse_weight: float = 0.0,
        keep_bytes: int = 2**32,
    ) -> None:
        """Prepare.

        Args:
            system: whose inner links are trained.
            targets: field of a row with the text of each agent.
            cosine_weight: Weight of 1 - cosine.
            mse_weight: Weight of the mean squared error, relative to the embeddings' mean square.
            keep_bytes: Maximum number of bytes of features that are kept for later epochs.
        """
        super().__init__()
        self.links = system.links
        self._system = (system,)
        self.targets = dict(targets)
        self.weights = {"cosine_weight": cosine_weight, "mse_weight": mse_weight}
        self.inner = {
            agent: link.id
            for link in system.plan.links
            if link.role == "inner"
            for agent in link.users
        }
        self._store = FeatureStore(keep_bytes)

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Pairs of some rows, of all agents."""
        (system,) = self._system
        return sum(
            len(answer_ids(system.backbone_of(name), str(row[self.targets[name]])))
            for name in self.inner
            for row in rows
        )

    def forward(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The loss of a batch: mean over the text positions of all agents.

        Args:
            rows: B mappings with the graph's inputs and the agents' texts.
            numbers: Numbers of the rows in the data, by which features are kept across epochs.
            num_items_in_batch: pairs that the loss is divided by; None: those of the rows.
        """
        (system,) = self._system
        read: dict[str, list[Features]] = {}
        sums, count = [], 0
        for name, link in self.inner.items():
            backbone, key = system.backbone_of(name), self._key(name)
            if key not in read:
                read[key] = self._features(name, key, rows, numbers)
            h_ND = torch.cat([own.h_ND for own in read[key]]).to(backbone.device)
            ids_N = torch.cat([own.ids_N for own in read[key]])
            z_ND = system.link(link).apply_to(h_ND)
            e_ND = backbone.embed(ids_N)
            sums.append(regression(z_ND, e_ND, mean_square(backbone), **self.weights))
            count += len(ids_N)
        device = sums[0].device
        items = count if num_items_in_batch is None else num_items_in_batch
        return {"loss": torch.stack([part.to(device) for part in sums]).sum() / items}

    def _key(self, name: str) -> str:
        """Equal for agents that read the same."""
        (system,) = self._system
        agent = system.plan.graph.agent(name)
        parts = [agent.prompt, agent.system, agent.chat_options, agent.tools, agent.tool_style]
        heard = [e for e in system.plan.graph.edges if e.target == name and not e.delay]
        texts = sorted((str(e.slot), self.targets.get(e.source, e.source)) for e in heard)
        own = [id(system.backbone_of(name)), self.targets[name], *texts]
        return json.dumps([*parts, *own], default=str)

    @torch.no_grad()
    def _features(
        self, name: str, key: str, rows: Sequence[Row], numbers: Sequence[int] | None
    ) -> list[Features]:
        """Features of each row, from what is kept or from the backbone."""
        (system,) = self._system
        backbone, agent = system.backbone_of(name), system.plan.graph.agent(name)

        def compute(places: list[int]) -> list[Features]:
            chosen = [rows[i] for i in places]
            scopes = [self._scope(agent, row) for row in chosen]
            prompt = pack(backbone, agent, scopes, {}, tools=tool_schemas(agent, system.tools))
            texts = [answer_ids(backbone, str(row[self.targets[name]])) for row in chosen]
            return read_features(backbone, prompt, texts)

        return self._store.get(key, numbers, len(rows), compute)

    def _scope(self, agent: AgentSpec, row: Row) -> dict[str, Any]:
        """Sample fields, and the senders' texts in the slots of the first round."""
        (system,) = self._system
        graph = system.plan.graph
        scope = {name: row[name] for name in graph.inputs}
        for edge in graph.edges:
            if edge.target == agent.name and not edge.delay and edge.slot:
                if edge.source in self.targets:
                    put_text(scope, edge, str(row[self.targets[edge.source]]))
                elif edge.link.kind == TEXT:
                    outside = system.outside_texts([row])[edge.source]
                    put_text(scope, edge, str(outside[0]))
        return scope

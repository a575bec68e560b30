"""The edge loop's loss: a message becomes what the receiver would have read as text.

Shapes: `D` width, `N` pairs of a state and the embedding that it is to become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentmas.backbones import LoadedBackbone, outside_ids
from latentmas.plan import Transfer
from latentmas.runtime import System
from latentmas.runtime.calling import tool_schemas
from latentmas.runtime.packing import pack
from latentmas.runtime.twin import load_beside
from latentmas.spec import TEXT, EdgeSpec, Graph
from latentmas.training.data import Row
from latentmas.training.regression import (
    Features,
    FeatureStore,
    mean_square,
    read_features,
    regression,
)

__all__ = ["EdgeLoss", "text_twin"]

Spoken = Mapping[tuple[str, int], str]
"""What each agent says in each round: (agent, round) → text."""


class _Use(NamedTuple):
    """An edge in a round of its sender."""

    edge: EdgeSpec
    link: str
    inner: str
    round: int


class EdgeLoss(nn.Module):
    """Regression of outer(inner(h_t)) to the receiver's embedding of the sender's next word.

    The sender reads its prompt, with texts in its slots, and then its own text; each state before a
    word of it is to become, through both links, what the receiver would read in that word's place.
    The texts are the team's own: what its text twin says. No answers are needed, and no gradient
    passes through a backbone, so every edge learns at once and by itself.
    """

    def __init__(
        self,
        system: System,
        *,
        targets: Mapping[str, str] | None = None,
        cosine_weight: float = 1.0,
        mse_weight: float = 1.0,
        keep_bytes: int = 2**32,
    ) -> None:
        """Prepare.

        Args:
            system: whose links are trained.
            targets: field of a row with each agent's text, the same in every round; None lets the
                text twin speak.
            cosine_weight: of 1 - cosine.
            mse_weight: of the squared error, relative to the embeddings' mean square.
            keep_bytes: most bytes of features that are kept for later epochs.
        """
        super().__init__()
        self.links = system.links
        self.targets = targets
        twin = text_twin(system) if targets is None else None
        self._parts = (system, twin)
        self.weights = {"cosine_weight": cosine_weight, "mse_weight": mse_weight}
        self._store = FeatureStore(keep_bytes)
        self._said: dict[int, Spoken] = {}
        edges = {edge.id: edge for edge in system.plan.graph.edges}
        self.uses = [  # turns that nobody hears of are not in the plan
            _Use(edges[step.edge], step.outer, step.inner, step.round)
            for step in system.plan.steps
            if isinstance(step, Transfer)
        ]

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Pairs of some rows, of all edges and rounds."""
        said = self._speak(rows, numbers)
        return sum(len(self._ids(use, spoken)) for use in self.uses for spoken in said)

    def forward(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The loss of a batch: mean over the words of all edges and rounds.

        Args:
            rows: B mappings with the graph's inputs.
            numbers: of the rows in the data, for what is kept across epochs.
            num_items_in_batch: pairs that the loss is divided by; None: those of the rows.
        """
        system, _twin = self._parts
        said = self._speak(rows, numbers)
        sums, count = [], 0
        for use in self.uses:
            features = self._features(use, rows, numbers, said)
            h_ND = torch.cat([own.h_ND for own in features])
            if not len(h_ND):
                continue
            sender = system.backbone_of(use.edge.source)
            receiver = system.backbone_of(use.edge.target)
            ids_N = torch.cat([own.ids_N for own in features])
            outer, h_ND = system.link(use.link), h_ND.to(sender.device)
            if "states" not in outer.needs:
                h_ND = system.link(use.inner).apply_to(h_ND)
            z_ND = outer.apply_to(h_ND)
            e_ND = _as_read(sender, receiver, ids_N)
            sums.append(regression(z_ND, e_ND, mean_square(receiver), **self.weights))
            count += len(ids_N)
        items = max(count, 1) if num_items_in_batch is None else num_items_in_batch
        device = sums[0].device
        return {"loss": torch.stack([part.to(device) for part in sums]).sum() / items}

    def _ids(self, use: _Use, spoken: Spoken) -> list[int]:
        """The first K tokens of what the sender says; a shorter text is filled up with ends."""
        system, _twin = self._parts
        graph, backbone = system.plan.graph, system.backbone_of(use.edge.source)
        text = spoken[use.edge.source, use.round]
        count = graph.steps_of(graph.agent(use.edge.source))
        ids = outside_ids(backbone.tokenizer, text)
        end = backbone.turn_end_id
        return (ids + [end] * count)[:count] if end is not None else ids[:count]

    @torch.no_grad()
    def _features(
        self,
        use: _Use,
        rows: Sequence[Row],
        numbers: Sequence[int] | None,
        said: Sequence[Spoken],
    ) -> list[Features]:
        system, _twin = self._parts
        backbone = system.backbone_of(use.edge.source)
        agent = system.plan.graph.agent(use.edge.source)
        empty = Features(torch.zeros(0, backbone.planned.info.hidden_size), torch.zeros(0).long())

        def compute(places: list[int]) -> list[Features]:
            texts = {i: self._ids(use, said[i]) for i in places}
            full = [i for i in places if texts[i]]
            if not full:
                return [empty for _ in places]
            scopes = [self._scope(use, rows[i], said[i]) for i in full]
            tools = tool_schemas(agent, system.tools)
            prompt = pack(backbone, agent, scopes, {}, tools=tools)
            found = dict(
                zip(full, read_features(backbone, prompt, [texts[i] for i in full]), strict=True)
            )
            return [found.get(i, empty) for i in places]

        return self._store.get(f"{agent.name}/{use.round}", numbers, len(rows), compute)

    def _scope(self, use: _Use, row: Row, spoken: Spoken) -> dict[str, Any]:
        """Sample fields, and texts in the slots that the sender's prompt has in that round."""
        system, _twin = self._parts
        graph = system.plan.graph
        scope = {name: row[name] for name in graph.inputs}
        for edge in graph.edges:
            if edge.target != use.edge.source or not edge.slot:
                continue
            text = spoken.get((edge.source, use.round - edge.delay))
            if text is None and edge.link.kind == TEXT and not edge.delay:
                text = str(system.outside_texts([row])[edge.source][0])
            if text is not None:
                scope[edge.slot] = text
        return scope

    @torch.no_grad()
    def _speak(self, rows: Sequence[Row], numbers: Sequence[int] | None) -> list[Spoken]:
        """What the agents say over each row, from what is kept, the row or the twin."""
        system, twin = self._parts
        rounds = range(1, system.plan.graph.rounds + 1)
        if twin is None:
            given = self.targets or {}
            return [{(a, n): str(row[f]) for a, f in given.items() for n in rounds} for row in rows]
        known: list[Spoken | None] = [None] * len(rows)
        if numbers is not None:
            known = [self._said.get(number) for number in numbers]
        new = [i for i, spoken in enumerate(known) if spoken is None]
        if new:
            result = twin.run([rows[i] for i in new], batch_size=max(1, len(new)))
            output = (twin.plan.output, twin.plan.graph.rounds)
            for place, i in enumerate(new):
                spoken = {output: result.texts[place]}
                for name, texts in result.spoken.items():
                    number, agent = name.removeprefix("round").split(".")[:2]
                    spoken[agent, int(number)] = texts[place]
                known[i] = spoken
                if numbers is not None:
                    self._said[numbers[i]] = spoken
        return [spoken for spoken in known if spoken is not None]


def text_twin(system: System) -> System:
    """The same team talking in text, on the same loaded backbones; an agent says K tokens."""
    spec = system.plan.graph
    agents = [
        agent.model_copy(update={"max_new_tokens": max(1, spec.steps_of(agent)), "tools": ()})
        for agent in spec.agents
    ]
    graph = Graph.from_spec(spec.replace(agents=agents)).as_text()
    return load_beside(system, graph)


def _as_read(sender: LoadedBackbone, receiver: LoadedBackbone, ids_N: Tensor) -> Tensor:
    """The receiver's embeddings of the sender's tokens, (N, D).

    With another tokenizer, a token is the mean over the tokens that its text has there. The end of
    the sender's turn is the end of the receiver's.
    """
    ends = ids_N == (-1 if sender.turn_end_id is None else sender.turn_end_id)
    if sender.tokenizer is receiver.tokenizer or _vocabulary(sender) == _vocabulary(receiver):
        own = receiver.turn_end_id
        return receiver.embed(ids_N if own is None else ids_N.masked_fill(ends, own))
    embed = cache(lambda token: _embed_text(sender, receiver, token))
    return torch.stack([embed(int(token)) for token in ids_N])


def _vocabulary(backbone: LoadedBackbone) -> dict[str, int]:
    vocabulary: dict[str, int] = backbone.tokenizer.get_vocab()
    return vocabulary


def _embed_text(sender: LoadedBackbone, receiver: LoadedBackbone, token: int) -> Tensor:
    if token == sender.turn_end_id and receiver.turn_end_id is not None:
        return receiver.embed(torch.tensor(receiver.turn_end_id))
    text = str(sender.tokenizer.decode([token]))
    ids = receiver.tokenizer(text, add_special_tokens=False).input_ids or [receiver.pad_id]
    return receiver.embed(torch.tensor(ids)).mean(dim=0)

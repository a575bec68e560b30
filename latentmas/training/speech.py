"""What agents say over a row, which their messages are to convey, and how receivers would read it.

Shapes: `D` width, `N` tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone, outside_ids
from latentmas.engine import Packed, pack
from latentmas.generation import tool_schemas
from latentmas.plan import Transfer
from latentmas.runtime import System
from latentmas.runtime.methods.sharing import load_beside
from latentmas.spec import TEXT, EdgeSpec, Graph
from latentmas.training.data import Row

__all__ = ["Speech", "TextMessages", "Use", "as_read", "text_twin"]

TextMessages = Mapping[tuple[str, int], str]
"""What each agent says in each round: (agent, round) → text."""


class Use(NamedTuple):
    """An edge in a round of its sender."""

    edge: EdgeSpec
    link: str
    inner: str
    round: int


class Speech:
    """The texts that a team's senders are to convey: given in the rows, or the text twin's own."""

    def __init__(self, system: System, targets: Mapping[str, str] | None = None) -> None:
        """Prepare.

        Args:
            system: whose agents speak.
            targets: field of a row with each agent's text, the same in every round; None lets the
                text twin speak.
        """
        self.system, self.targets = system, targets
        self._twin = text_twin(system) if targets is None else None
        self._said: dict[int, TextMessages] = {}
        edges = {edge.id: edge for edge in system.plan.graph.edges}
        self.uses = [  # turns that nobody hears of are not in the plan
            Use(edges[step.edge], step.outer, step.inner, step.round)
            for step in system.plan.steps
            if isinstance(step, Transfer)
        ]

    def ids(self, agent: str, round: int, text_messages: TextMessages) -> list[int]:
        """The first K tokens of what an agent says; a shorter text is filled up with ends."""
        graph, backbone = self.system.plan.graph, self.system.backbone_of(agent)
        count = graph.steps_of(graph.agent(agent))
        ids = outside_ids(backbone.tokenizer, text_messages[agent, round])
        end = backbone.turn_end_id
        return (ids + [end] * count)[:count] if end is not None else ids[:count]

    def prompt(
        self, agent: str, round: int, rows: Sequence[Row], said: Sequence[TextMessages]
    ) -> Packed:
        """An agent's prompts in a round, with texts in their slots.

        Args:
            agent: its name.
            round: from 1.
            rows: B mappings with the graph's inputs.
            said: what `speak` returned for them.
        """
        spec = self.system.plan.graph.agent(agent)
        scopes = [
            self._scope(agent, round, row, text_messages)
            for row, text_messages in zip(rows, said, strict=True)
        ]
        tools = tool_schemas(spec, self.system.tools)
        return pack(self.system.backbone_of(agent), spec, scopes, {}, tools=tools)

    def _scope(
        self, agent: str, round: int, row: Row, text_messages: TextMessages
    ) -> dict[str, Any]:
        """Sample fields, and texts in the slots that the agent's prompt has in that round."""
        graph = self.system.plan.graph
        scope = {name: row[name] for name in graph.inputs}
        for edge in graph.edges:
            if edge.target != agent or not edge.slot:
                continue
            text = text_messages.get((edge.source, round - edge.delay))
            if text is None and edge.link.kind == TEXT and not edge.delay:
                text = str(self.system.outside_texts([row])[edge.source][0])
            if text is not None:
                put_text(scope, edge, text)
        return scope

    @torch.no_grad()
    def speak(
        self, rows: Sequence[Row], numbers: Sequence[int] | None = None
    ) -> list[TextMessages]:
        """What the agents say over each row, from what is kept, the row or the twin.

        Args:
            rows: B mappings with the graph's inputs, and the texts where `targets` names them.
            numbers: Numbers of the rows in the data, by which texts of the twin are kept; None
                keeps none.
        """
        twin = self._twin
        rounds = range(1, self.system.plan.graph.rounds + 1)
        if twin is None:
            given = self.targets or {}
            return [{(a, n): str(row[f]) for a, f in given.items() for n in rounds} for row in rows]
        known: list[TextMessages | None] = [None] * len(rows)
        if numbers is not None:
            known = [self._said.get(number) for number in numbers]
        new = [i for i, text_messages in enumerate(known) if text_messages is None]
        if new:
            result = twin.run([rows[i] for i in new], batch_size=max(1, len(new)))
            output = (twin.plan.output, twin.plan.graph.rounds)
            for place, i in enumerate(new):
                text_messages = {output: result.texts[place]}
                for step in twin.plan.steps:
                    if step.output in result.text_messages:
                        text_messages[step.agent, step.round] = result.text_messages[step.output][
                            place
                        ]
                known[i] = text_messages
                if numbers is not None:
                    self._said[numbers[i]] = text_messages
        return [text_messages for text_messages in known if text_messages is not None]


def put_text(scope: dict[str, Any], edge: EdgeSpec, text: str) -> None:
    """Fill the edge's slot with a text; where edges are combined, the texts have a line each."""
    before = scope.get(str(edge.slot)) if edge.combine else None
    scope[str(edge.slot)] = text if before is None else f"{before}\n{text}"


def text_twin(system: System) -> System:
    """The same team talking in text, on the same loaded backbones; an agent says K tokens."""
    spec = system.plan.graph
    agents = [
        agent.model_copy(update={"max_new_tokens": max(1, spec.steps_of(agent)), "tools": ()})
        for agent in spec.agents
    ]
    graph = Graph.from_spec(spec.replace(agents=agents)).as_text()
    return load_beside(system, graph)


def as_read(sender: LoadedBackbone, receiver: LoadedBackbone, ids_N: Tensor) -> Tensor:
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
    ids = outside_ids(receiver.tokenizer, text) or [receiver.pad_id]
    return receiver.embed(torch.tensor(ids)).mean(dim=0)

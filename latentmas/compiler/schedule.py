"""Schedule: unroll rounds × agents into flat steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import networkx as nx

from latentmas.plan import (
    Combine,
    Decode,
    LinkPlan,
    Rollout,
    Step,
    Transfer,
    combined_in,
    edge_labels,
    message_on,
    states_of,
    text_of,
)
from latentmas.spec import TEXT, AgentSpec, EdgeSpec, GraphSpec

__all__ = ["schedule"]


def schedule(graph: GraphSpec, links: Sequence[LinkPlan]) -> tuple[Step, ...]:
    """Every step of every round, including dead ones.

    Agents of one topological generation of the forward graph form a group, since no path connects
    them. Their turns come first, then the transfers of their results.

    Requires: a valid graph (slots resolved, forward part acyclic). Ensures: values are defined
    before use; there is a final decode.
    """
    return tuple(_Unroller(graph, links).steps())


class _Unroller:
    def __init__(self, graph: GraphSpec, links: Sequence[LinkPlan]) -> None:
        self.graph = graph
        self.link_of = {(link.role, user): link.id for link in links for user in link.users}
        self.labels = edge_labels(graph.edges)
        self.agents = {agent.name: agent for agent in graph.agents}
        self.incoming = {n: [e for e in graph.edges if e.target == n] for n in self.agents}
        self.outgoing = {n: [e for e in graph.edges if e.source == n] for n in self.agents}

    def steps(self) -> Iterator[Step]:
        for round in range(1, self.graph.rounds + 1):
            for group, names in enumerate(self._generations()):
                prompts = {name: self._inputs(name, round, group) for name in names}
                for _, combined in prompts.values():  # first, so that rollouts stay side by side
                    yield from combined
                for name, (inputs, _) in prompts.items():
                    yield from self._turns(self.agents[name], round, group, inputs)
                for name in names:
                    yield from self._transfers(name, round, group)

    def _generations(self) -> list[list[str]]:
        forward: nx.DiGraph[str] = nx.DiGraph()
        forward.add_nodes_from(self.agents)
        forward.add_edges_from(
            (e.source, e.target)
            for e in self.graph.edges
            if not e.delay and e.source in self.agents
        )
        order = list(self.agents)
        return [sorted(names, key=order.index) for names in nx.topological_generations(forward)]

    def _turns(
        self, agent: AgentSpec, round: int, group: int, inputs: dict[str, str]
    ) -> Iterator[Step]:
        kinds = {edge.link.kind == TEXT for edge in self.outgoing[agent.name]}
        final = agent.name == self.graph.output[0] and round == self.graph.rounds
        if False in kinds:
            yield Rollout(
                agent=agent.name,
                round=round,
                group=group,
                inputs=inputs,
                output=states_of(agent.name, round).name,
                inner=self.link_of["inner", agent.name],
                latent_steps=self.graph.steps_of(agent),
            )
        if True in kinds or final:
            yield Decode(
                agent=agent.name,
                round=round,
                group=group,
                inputs=inputs,
                output=text_of(agent.name, round).name,
                final=final,
                max_new_tokens=agent.max_new_tokens,
            )

    def _transfers(self, name: str, round: int, group: int) -> Iterator[Step]:
        for edge in self.outgoing[name]:
            if edge.link.kind != TEXT:
                yield Transfer(
                    edge=edge.id,
                    agent=name,
                    target=edge.target,
                    round=round,
                    group=group,
                    inner=self.link_of["inner", name],
                    outer=self.link_of["outer", edge.id],
                    source=states_of(name, round).name,
                    output=self._value(edge, round),
                )

    def _inputs(self, name: str, round: int, group: int) -> tuple[dict[str, str], list[Combine]]:
        """Slot → its value, and the steps that combine several messages into one."""
        found: dict[str, list[EdgeSpec]] = {}
        for edge in self.incoming[name]:
            if round > edge.delay:
                found.setdefault(str(edge.slot), []).append(edge)
        inputs, combined = dict[str, str](), list[Combine]()
        for slot, edges in found.items():
            values = [self._value(edge, round - edge.delay) for edge in edges]
            inputs[slot] = values[0]
            if len(values) > 1 and edges[0].combine is not None:
                step = Combine(
                    agent=name,
                    round=round,
                    group=group,
                    slot=slot,
                    how=edges[0].combine,
                    sources=tuple(values),
                    output=combined_in(name, slot, round).name,
                )
                inputs[slot] = step.output
                combined.append(step)
        return inputs, combined

    def _value(self, edge: EdgeSpec, round: int) -> str:
        if edge.source not in self.agents:
            return edge.source
        if edge.link.kind == TEXT:
            return text_of(edge.source, round).name
        return message_on(edge, self.labels[edge.id], round).name

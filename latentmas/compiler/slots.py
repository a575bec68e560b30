"""Slots: resolve the slot of each edge that does not name one."""

from __future__ import annotations

from latentmas.compiler.mentions import braces_hint, broken, variables
from latentmas.errors import Problem
from latentmas.spec import TEXT, AgentSpec, EdgeSpec, GraphSpec

__all__ = ["resolve_slots"]


def resolve_slots(graph: GraphSpec) -> tuple[GraphSpec, list[Problem]]:
    """Resolve the slot of every edge, and turn edges from text sources into text edges.

    The slot named after the source wins; otherwise the only unbound slot.

    Returns:
        The graph with slots resolved, and an LM106 problem for each edge with no match or several.
    """
    agents = {agent.name: agent for agent in graph.agents}
    texts = {source.name for source in graph.text_sources}
    edges = [
        _named_like_source(_as_text(edge, texts), agents, graph.inputs) for edge in graph.edges
    ]
    problems = []
    for index, edge in enumerate(edges):
        if edge.slot is not None or edge.target not in agents:
            continue
        if broken(agents[edge.target]):
            continue  # its slots are unknown until the template is fixed: LM301
        rivals = [e for e in edges if e.target == edge.target]
        free = _free_slots(agents[edge.target], rivals, graph.inputs)
        if len(free) == 1 and sum(e.slot is None for e in rivals) == 1:
            edges[index] = edge.model_copy(update={"slot": free[0]})
        else:
            problems.append(_no_slot(edge, free, agents[edge.target]))
    return graph.model_copy(update={"edges": tuple(edges)}), problems


def _as_text(edge: EdgeSpec, texts: set[str]) -> EdgeSpec:
    if edge.source not in texts or edge.link.kind == TEXT:
        return edge
    return edge.model_copy(update={"link": edge.link.model_copy(update={"kind": TEXT})})


def _named_like_source(
    edge: EdgeSpec, agents: dict[str, AgentSpec], inputs: tuple[str, ...]
) -> EdgeSpec:
    if edge.slot is not None or edge.target not in agents:
        return edge
    if edge.source in variables(agents[edge.target]) - set(inputs):
        return edge.model_copy(update={"slot": edge.source})
    return edge


def _free_slots(agent: AgentSpec, edges: list[EdgeSpec], inputs: tuple[str, ...]) -> list[str]:
    return sorted(variables(agent) - set(inputs) - {edge.slot for edge in edges if edge.slot})


def _no_slot(edge: EdgeSpec, free: list[str], target: AgentSpec) -> Problem:
    verb = "feedback" if edge.delay else "connect"
    if free:
        names = ", ".join(free)
        message = (
            f"the prompt of {edge.target!r} has several free slots or competing edges: {names}"
        )
        hint = "name the slot: "
    else:
        message = f"the prompt of {edge.target!r} has no free slot for it"
        hint = f"write {{{{ {edge.source} }}}} into that prompt, or name a slot: "
    slot = free[0] if free else "slot"
    call = f'graph.{verb}("{edge.source}", "{edge.target}.{slot}")'
    in_file = f"{hint}add `slot: {free[0] if free else 'NAME'}` to this edge"
    braces = braces_hint([target], edge.source)
    if braces:
        call, hint, in_file = "", braces, braces
    path = f"edge {edge.source}->{edge.target}"
    return Problem("LM106", path, message, hint + call, in_file)

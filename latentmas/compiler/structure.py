"""Structure: endpoints, output, cycles, reach."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from latentmas.errors import Problem, closest
from latentmas.spec import GraphSpec

__all__ = ["structure_problems"]


def structure_problems(graph: GraphSpec) -> list[Problem]:
    """LM105, LM107, LM110 to LM112, LM114, LM116, LM117, LM123."""
    if not graph.agents:
        hint = "graph.add_agent(name, backbone, prompt=…)"
        in_file = "add an entry with `name`, `backbone` and `prompt` under `agents`"
        return [Problem("LM116", "graph", "it has no agents", hint, in_file)]
    return [*_endpoints(graph), *_output(graph), *_cycles(graph), *_feedback(graph), *_reach(graph)]


def _endpoints(graph: GraphSpec) -> list[Problem]:
    agents = list(dict.fromkeys(agent.name for agent in graph.agents))
    texts = [source.name for source in graph.text_sources]
    problems = []
    for edge in graph.edges:
        ends = (("source", edge.source, agents + texts), ("target", edge.target, agents))
        for end, name, known in ends:
            if name in known:
                continue
            guess = closest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"there are: {_list(known)}"
            message = f"its {end} {name!r} does not exist"
            problems.append(Problem("LM107", f"edge {edge.source}->{edge.target}", message, hint))
        if edge.delay and edge.source in texts:
            hint = f'graph.connect("{edge.source}", "{edge.target}.{edge.slot or "slot"}")'
            message = "text from outside is the same in every round"
            in_file = "remove `delay: 1` from this edge"
            problems.append(Problem("LM123", f"edge {edge.id}", message, hint, in_file))
    return problems


def _list(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _output(graph: GraphSpec) -> list[Problem]:
    agents = [agent.name for agent in graph.agents]
    if not graph.output:
        hint = f'graph.output("{agents[-1]}")'
        in_file = f"add `output: {agents[-1]}`"
        return [Problem("LM111", "graph", "no agent is the output", hint, in_file)]
    if len(set(graph.output)) > 1 or len(graph.output) > 1:
        message = f"{len(graph.output)} outputs: {_list(graph.output)}"
        hint = (
            "call graph.output(…) once, for one agent; to change it: "
            f'graph.output("{graph.output[-1]}", replace=True)'
        )
        return [Problem("LM111", "graph", message, hint, "name one agent, as `output: NAME`")]
    name = graph.output[0]
    if name not in agents:
        guess = closest(name, agents)
        hint = f"did you mean {guess!r}?" if guess else f"there are: {_list(agents)}"
        return [Problem("LM111", "graph", f"the output {name!r} is not an agent", hint)]
    return []


def _cycles(graph: GraphSpec) -> list[Problem]:
    forward = _digraph(graph, delays=(0,))
    order = {agent.name: i for i, agent in enumerate(graph.agents)}
    problems = []
    for component in nx.strongly_connected_components(forward):
        part = forward.subgraph(component)
        if len(component) == 1 and not part.number_of_edges():
            continue
        cycle = _cycle_from_first(part, order)
        path = " → ".join([*cycle, cycle[0]])
        hint = f'graph.feedback("{cycle[-1]}", "{cycle[0]}")'
        in_file = f"add `delay: 1` to the edge from {cycle[-1]} to {cycle[0]}"
        message = f"forward edges form a cycle: {path}"
        problems.append(Problem("LM110", "graph", message, hint, in_file))
    return problems


def _cycle_from_first(part: nx.DiGraph[str], order: dict[str, int]) -> list[str]:
    """Shortest cycle through the agent declared first."""
    first = next(name for name in order if name in part)
    back = list(part.predecessors(first))
    paths: list[list[str]] = [
        list(nx.shortest_path(part, first, node)) for node in back if nx.has_path(part, first, node)
    ]
    return min(paths, key=len)


def _feedback(graph: GraphSpec) -> list[Problem]:
    if graph.rounds != 1:
        return []
    hint = "set rounds to 2 or more, or remove the edge"
    return [
        Problem("LM114", f"edge {edge.id}", "feedback needs a next round; rounds is 1", hint)
        for edge in graph.edges
        if edge.delay
    ]


def _reach(graph: GraphSpec) -> list[Problem]:
    agents = [agent.name for agent in graph.agents]
    if len(graph.output) != 1 or graph.output[0] not in agents:
        return []
    output = graph.output[0]
    whole = _digraph(graph, delays=(0, 1))
    together = nx.node_connected_component(whole.to_undirected(as_view=True), output)
    parts = [part for part in nx.weakly_connected_components(whole) if output not in part]
    problems = []
    for part in parts:
        names = ", ".join(name for name in agents if name in part)
        message = f"no edge joins it to the output agent {output!r}"
        problems.append(Problem("LM117", f"part {names}", message, "connect it, or remove it"))
    lengths = nx.single_source_dijkstra_path_length(whole.reverse(), output, weight="delay")
    lag = {name: int(length) for name, length in lengths.items()}
    for name in agents:
        if name in together and name not in lag:
            message = (
                f"no path leads to the output agent {output!r}, so its result would not be used"
            )
            problems.append(Problem("LM112", f"agent {name}", message, "connect it, or remove it"))
    return problems + _too_late(graph, lag)


def _too_late(graph: GraphSpec, lag: dict[str, int]) -> list[Problem]:
    """LM114 for edges whose message could reach the output only after the last round."""
    problems = []
    for edge in graph.edges:
        needed = lag.get(edge.target, 0) + edge.delay + 1
        known = edge.target in lag and edge.delay in (0, 1)
        if known and 1 < graph.rounds < needed:
            message = (
                f"its message reaches the output after {needed} rounds; rounds is {graph.rounds}"
            )
            hint = f"set rounds to {needed} or more, or remove the edge"
            problems.append(Problem("LM105", f"edge {edge.id}", message, hint))
    return problems


def _digraph(graph: GraphSpec, delays: tuple[int, ...]) -> nx.DiGraph[str]:
    result: nx.DiGraph[str] = nx.DiGraph()
    result.add_nodes_from(agent.name for agent in graph.agents)
    for edge in graph.edges:
        if edge.delay not in delays or edge.source not in result or edge.target not in result:
            continue
        known = result.get_edge_data(edge.source, edge.target, {"delay": edge.delay})["delay"]
        result.add_edge(edge.source, edge.target, delay=min(known, edge.delay))
    return result

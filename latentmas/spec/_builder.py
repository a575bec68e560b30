"""Parts of `Graph`: references, argument checks, and hints for methods it does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, overload

from latentmas.errors import GraphError, Problem
from latentmas.spec._base import canonical_json
from latentmas.spec.agent import TEXT
from latentmas.spec.backbone import Backbone

if TYPE_CHECKING:
    from latentmas.spec.graph import Graph
    from latentmas.spec.graph_spec import GraphSpec

__all__ = [
    "ELSEWHERE",
    "AgentRef",
    "EdgeRef",
    "Field",
    "Name",
    "TextFunction",
    "check_backbone",
    "class_only",
    "key_of",
    "name_of",
    "problems_of",
    "put",
    "put_edge",
    "text_fields",
    "tool_name",
]

T = TypeVar("T")
TextFunction = Callable[[Mapping[str, Any]], str]
"""The function of a text source: takes a sample's fields and returns text."""


class AgentRef(NamedTuple):
    """A declared agent; accepted wherever the agent's name is."""

    name: str

    def slot(self, slot: str) -> str:
        """`"agent.slot"`, the target of an edge."""
        return f"{self.name}.{slot}"


class EdgeRef(NamedTuple):
    """A declared edge."""

    source: str
    target: str
    slot: str | None
    delay: int


Name = str | AgentRef

ELSEWHERE = {
    "run": "a graph has no weights; call graph.compile().load().run(samples)",
    "stream": "a graph has no weights; call graph.compile().load().stream(sample)",
    "train": "load the team first: system = graph.compile().load(); then use a trainer, such as "
    "lm.OuterTrainer(system, config, train_dataset=rows).train()",
    "parameters": "a graph has no weights; call graph.compile().load().parameters()",
    "to": "a graph has no weights; call graph.compile().load(device=…)",
    "save_pretrained": "a graph has no weights; call graph.compile().load().save_pretrained(folder)"
    ", or graph.save(path) for a graph file",
    "from_pretrained": "call lm.System.from_pretrained(folder)",
    "draw": "call graph.compile().draw(path)",
    "explain": "call graph.compile().explain()",
    "summary": "call graph.compile().summary()",
    "validate": "call graph.compile(), which reports every problem",
    "check": "call graph.compile(), which reports every problem",
    "agents": "add agents with graph.add_agent(…); read them with graph.spec().agents",
    "edges": "add edges with graph.connect(…) or graph.feedback(…); read them with "
    "graph.spec().edges",
    "backbones": "give backbones to graph.add_agent(…); read them with graph.spec().backbones",
    "text_sources": "add text sources with graph.add_text_source(…); read them with "
    "graph.spec().text_sources",
    "output": "call graph.output(agent)",
    "add_edge": "call graph.connect(source, target), or graph.feedback(source, target)",
    "add_node": "call graph.add_agent(name, backbone, prompt=…)",
}
"""Attribute that a graph does not have → what to write instead."""

if TYPE_CHECKING:
    class_only = classmethod
else:

    class class_only(classmethod):  # noqa: N801  # a decorator
        """A class method that raises a hint when it is accessed on an instance."""

        def __get__(self, instance: Any, owner: Any = None) -> Callable[..., Any]:
            """The bound method; on an instance, a function that raises with the right call."""
            if instance is None:
                return super().__get__(instance, owner)
            return _refused(type(instance).__name__, self.__func__.__name__)


_INSTEAD = {
    ("Graph", "load"): "to load the weights of a team: graph.compile().load(); "
    "to read a graph file: lm.Graph.load(path)",
    ("System", "load"): "this system is loaded already: call system.run(samples). To load "
    "trained links: system.load_links(folder); to load a saved team: "
    "lm.System.from_pretrained(folder)",
}


def _refused(kind: str, name: str) -> Callable[..., Any]:
    hint = _INSTEAD.get((kind, name), f"call it on the class: {kind}.{name}(…)")

    def refused(*_: object, **__: object) -> None:
        raise TypeError(f"{kind}.{name} is called on the class, not on a {kind.lower()}; {hint}")

    return refused


def check_backbone(what: str, backbone: Backbone) -> Backbone:
    """Return the backbone unchanged; TypeError if it is something else."""
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f'{what} is {backbone!r:.60}; pass a Backbone, such as lm.Backbone("Qwen/Qwen3-0.6B")'
        )
    return backbone


def tool_name(agent: str, tool: str | Callable[..., str]) -> str:
    """The name of a tool passed to `add_agent`; TypeError if it does not have one."""
    name = tool if isinstance(tool, str) else getattr(tool, "__name__", None)
    if not isinstance(name, str) or (not callable(tool) and not isinstance(tool, str)):
        raise TypeError(
            f"agent {str(agent)!r}: {tool!r:.60} in tools is not a tool; give the name of a "
            "registered one, or a function that has a name and returns text"
        )
    return name


def name_of(name: Name) -> str:
    """The name behind a name or a reference."""
    return name.name if isinstance(name, AgentRef) else str(name)


class Field(Generic[T]):
    """A readable and writable field of a graph's declaration."""

    def __init__(self, key: str) -> None:
        self.key = key

    @overload
    def __get__(self, graph: None, owner: type[Graph]) -> Self: ...

    @overload
    def __get__(self, graph: Graph, owner: type[Graph]) -> T: ...

    def __get__(self, graph: Graph | None, owner: type[Graph]) -> Self | T:
        """The current value; on the class, the descriptor itself."""
        if graph is None:
            return self
        value: T = graph._data[self.key]
        return value

    def __set__(self, graph: Graph, value: T) -> None:
        """Set the value; `compile` validates it."""
        graph._data[self.key] = (
            [value] if self.key == "inputs" and isinstance(value, str) else value
        )


def put(declared: list[Any], new: Any, replaces: Callable[[Any], bool]) -> None:
    """Add a declaration, unless an equal one exists (a notebook cell may run twice)."""
    if new in declared and not any(replaces(old) and old != new for old in declared):
        return
    places = [i for i, old in enumerate(declared) if replaces(old)]
    if not places:
        declared.append(new)
        return
    declared[places[0]] = new
    for i in reversed(places[1:]):
        del declared[i]


def key_of(source: str, backbone: dict[str, Any], known: Mapping[str, Any]) -> str:
    """The key of an equal backbone, or a new key made from the last part of its source."""
    for key, other in known.items():
        if canonical_json(other) == canonical_json(backbone):
            return key
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.rstrip("/").split("/")[-1]) or "model"
    key, count = stem.lower(), 2
    while key in known:
        key, count = f"{stem.lower()}-{count}", count + 1
    return key


def put_edge(edges: list[Any], declared: dict[str, Any], replace: bool) -> None:
    """Add an edge.

    With `replace`, it takes the place of the edges into its slot, or, if it names no slot, of the
    edges between the same two agents.
    """
    same = ("target", "slot") if declared["slot"] else ("source", "target", "slot", "delay")
    put(edges, declared, lambda e: replace and all(e[key] == declared[key] for key in same))


def problems_of(compile: Callable[[], object]) -> tuple[Problem, ...]:
    """The problems that compiling finds."""
    try:
        compile()
    except GraphError as error:
        return error.problems
    return ()


def text_fields(spec: GraphSpec, max_new_tokens: int | None) -> dict[str, Any]:
    """The fields in which the text twin of a declaration differs from it."""
    edges = [
        e.model_copy(update={"link": e.link.model_copy(update={"kind": TEXT})}) for e in spec.edges
    ]
    agents = [
        agent.model_copy(update={"max_new_tokens": agent.max_new_tokens or max_new_tokens})
        for agent in spec.agents
    ]
    return {"name": f"{spec.name}-text", "edges": edges, "agents": agents}


def keyed_backbone(what: str, backbone: Backbone, known: dict[str, Any]) -> str:
    """The key under which a backbone is declared; `known` gets the declaration.

    Raises:
        TypeError: It is not a Backbone.
    """
    data = check_backbone(what, backbone).model_dump()
    key = key_of(backbone.source, data, known)
    known[key] = data
    return key


def mutable(value: Any) -> Any:
    """A list in place of a tuple; other values as they are."""
    return list(value) if isinstance(value, tuple) else value

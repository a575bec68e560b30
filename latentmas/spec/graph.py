"""`Graph`: the mutable builder of a team. It collects; only `compile` judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentmas.spec._base import canonical_json
from latentmas.spec.agent import TEXT
from latentmas.spec.backbone import Backbone
from latentmas.spec.graph_spec import GraphSpec
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.plan import BackboneInfo, Plan

__all__ = ["AgentRef", "EdgeRef", "Graph", "TextFunction"]

TextFunction = Callable[[Mapping[str, Any]], str]
"""A text source: takes a sample's fields, returns text."""


class AgentRef(NamedTuple):
    """A declared agent; usable wherever its name is."""

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


class Graph:
    """Builder of a team: backbones, agents, edges, one output.

    Nothing is judged while building, so that `compile` can report every mistake at once.

    Example:
        >>> graph = Graph("pair", inputs=["question"], rounds=2)
        >>> tiny = Backbone("./tiny")
        >>> _ = graph.add_agent("expert", tiny, prompt="Plan: {{ question }}")
        >>> _ = graph.add_agent("learner", tiny, prompt="{{ expert }} {{ question }}")
        >>> _ = graph.connect("expert", "learner")
        >>> graph.output("learner").spec().edges[0].id
        'expert->learner.?'
    """

    def __init__(
        self,
        name: str = "team",
        *,
        inputs: Iterable[str] = (),
        rounds: int = 3,
        latent_steps: int = 16,
        backbones: Mapping[str, Backbone] | None = None,
    ) -> None:
        """Start an empty graph.

        Args:
            name: of the team, for titles and files.
            inputs: sample fields that prompts may use.
            rounds: R, how often every agent has its turn.
            latent_steps: K, latent steps of each agent that sets none itself.
            backbones: models by name, for agents that refer to them by name.
        """
        self._data: dict[str, Any] = {
            "name": name,
            "inputs": [inputs] if isinstance(inputs, str) else list(inputs),
            "rounds": rounds,
            "latent_steps": latent_steps,
            "backbones": {
                key: _backbone(f"backbones[{key!r}]", backbone).model_dump()
                for key, backbone in (backbones or {}).items()
            },
            "agents": [],
            "text_sources": [],
            "edges": [],
            "output": [],
        }
        self.text_functions: dict[str, TextFunction] = {}
        """Functions of the text sources, by name. They are not part of the spec."""
        self.tools: dict[str, Tool] = {}
        """Tools given as functions, by name. They are not part of the spec either."""

    @property
    def name(self) -> str:
        """Of the team."""
        return str(self._data["name"])

    def add_agent(
        self,
        name: str,
        backbone: Backbone | str,
        *,
        prompt: str,
        system: str | None = None,
        latent_steps: int | None = None,
        allow_empty: bool = False,
        inner: str | Mapping[str, Any] = "recursive",
        max_new_tokens: int | None = None,
        thinking: bool = False,
        chat_options: Mapping[str, Any] | None = None,
        tools: Iterable[str | Tool] = (),
        tool_style: str = "tags",
        max_tool_calls: int = 5,
    ) -> AgentRef:
        """Add an agent.

        Args:
            name: a Python identifier; also the default slot name of its outgoing edges.
            backbone: the model, or its name in `backbones`.
            prompt: Jinja2 template of the user turn; its variables are inputs or slots.
            system: template of the system turn.
            latent_steps: K of this agent.
            allow_empty: permit `latent_steps=0` (the null channel).
            inner: kind of the inner link, or a mapping with the fields of `LinkSpec`.
            max_new_tokens: most tokens it writes when it decodes.
            thinking: the chat template's `enable_thinking`.
            chat_options: further keywords for the chat template.
            tools: what it may call while it decodes: names of registered tools, or typed functions
                that return text.
            tool_style: `"tags"` (`<python>…</python>` in the text) or `"chat"`, the calls that the
                backbone's chat template knows.
            max_tool_calls: most calls in one answer.

        Raises:
            TypeError: the backbone, or a tool, is something else.
        """
        named = [(_tool_name(name, tool), tool) for tool in tools]
        self.tools |= {name: tool for name, tool in named if not isinstance(tool, str)}
        agent: dict[str, Any] = {
            "name": str(name),
            "backbone": self._backbone_key(str(name), backbone),
            "prompt": prompt,
            "system": system,
            "latent_steps": latent_steps,
            "allow_empty": allow_empty,
            "inner": {"kind": inner} if isinstance(inner, str) else dict(inner),
            "max_new_tokens": max_new_tokens,
            "chat_options": {"enable_thinking": thinking, **(chat_options or {})},
            "tools": [name for name, _ in named],
            "tool_style": tool_style,
            "max_tool_calls": max_tool_calls,
        }
        self._data["agents"].append(agent)
        return AgentRef(str(name))

    def add_text_source(self, name: str, source: str | TextFunction) -> AgentRef:
        """Add text from outside: a constant, or a function of the sample's fields.

        A function is not written to graph files; whoever loads the file hands it to
        `Plan.load(text_functions=…)`.
        """
        text = source if isinstance(source, str) else None
        self._data["text_sources"].append({"name": name, "text": text})
        if not isinstance(source, str):
            self.text_functions[name] = source
        return AgentRef(name)

    def connect(
        self,
        source: Name,
        target: Name,
        *,
        link: str = "recursive",
        init: str = "default",
        norm: str | None = None,
        share: str | None = None,
        **options: Any,
    ) -> EdgeRef:
        """Let `source` fill a slot of `target` in the same round.

        Args:
            source: an agent or a text source.
            target: `"agent.slot"`, or `"agent"` for the slot named like the source, else the only
                unbound one.
            link: kind of the outer link, or `"text"` to let the source speak.
            init: `"default"`, `"near_identity"` or `"ridge"`.
            norm: `"embedding"` or `"none"`; None calibrates where the kind can.
            share: links with one such name have one set of weights.
            **options: options of the kind, such as `expansion=2`.
        """
        spec = {"kind": link, "init": init, "norm": norm, "share": share, "options": options}
        return self._edge(source, target, 0, spec)

    def feedback(
        self,
        source: Name,
        target: Name,
        *,
        link: str = "recursive",
        init: str = "default",
        norm: str | None = None,
        share: str | None = None,
        **options: Any,
    ) -> EdgeRef:
        """Let `source` fill a slot of `target` in the *next* round; arguments as `connect`."""
        spec = {"kind": link, "init": init, "norm": norm, "share": share, "options": options}
        return self._edge(source, target, 1, spec)

    def output(self, agent: Name) -> Graph:
        """Name the one agent that decodes, in the last round; returns the graph."""
        self._data["output"].append(_name(agent))
        return self

    def spec(self) -> GraphSpec:
        """The frozen declaration as it stands.

        Raises:
            GraphError: LM100 problems when an argument is of the wrong type.
        """
        return GraphSpec.parse(self._data)

    def compile(self, *, facts: Mapping[str, BackboneInfo] | None = None) -> Plan:
        """Compile to a [`Plan`][latentmas.Plan]: no weights, no GPU.

        Args:
            facts: what is known of backbones, by key or source; others are read from their
                configuration files.

        Raises:
            GraphError: with every problem of the graph.
        """
        from latentmas.compiler import compile_graph

        plan = compile_graph(self.spec(), facts=facts)
        return plan.with_functions(text_functions=self.text_functions, tools=self.tools)

    def copy(self) -> Graph:
        """An independent copy."""
        return self.from_spec(self.spec(), text_functions=self.text_functions, tools=self.tools)

    def replace(self, **changes: Any) -> Graph:
        """A copy with some `GraphSpec` fields changed, such as `rounds=5`."""
        spec = self.spec().replace(**changes)
        return self.from_spec(spec, text_functions=self.text_functions, tools=self.tools)

    def as_text(self, *, max_new_tokens: int | None = None) -> Graph:
        """The text twin: the same graph, every edge a text edge.

        Args:
            max_new_tokens: most tokens that an agent without a limit of its own writes a turn.
        """
        spec = self.spec()
        edges = [
            e.model_copy(update={"link": e.link.model_copy(update={"kind": TEXT})})
            for e in spec.edges
        ]
        agents = [
            agent.model_copy(update={"max_new_tokens": agent.max_new_tokens or max_new_tokens})
            for agent in spec.agents
        ]
        return self.replace(name=f"{spec.name}-text", edges=edges, agents=agents)

    @classmethod
    def from_spec(
        cls,
        spec: GraphSpec,
        *,
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
    ) -> Graph:
        """A builder that starts from a declaration."""
        graph = cls(spec.name)
        data = spec.model_dump()
        graph._data = {key: _mutable(value) for key, value in data.items()}
        graph._data["output"] = list(spec.output)
        graph.text_functions = dict(text_functions or {})
        graph.tools = dict(tools or {})
        return graph

    @classmethod
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> Graph:
        """A builder that starts from a graph file; arguments and errors as `GraphSpec.load`."""
        return cls.from_spec(GraphSpec.load(path, trust_remote_code=trust_remote_code))

    def save(self, path: str | Path) -> Path:
        """Write the declaration as YAML (`.yaml`, `.yml`) or JSON (`.json`).

        Raises:
            DataError: for another suffix.
        """
        return self.spec().save(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.spec() == other.spec()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        agents = ", ".join(agent["name"] for agent in self._data["agents"])
        edges = len(self._data["edges"])
        return f"<Graph {self._data['name']!r}: {agents or 'no agents'}; {edges} edges>"

    def _edge(self, source: Name, target: Name, delay: int, link: dict[str, Any]) -> EdgeRef:
        agent, _, slot = _name(target).partition(".")
        edge = EdgeRef(_name(source), agent, slot or None, delay)
        self._data["edges"].append(edge._asdict() | {"link": link})
        return edge

    def _backbone_key(self, agent: str, backbone: Backbone | str) -> str:
        if isinstance(backbone, str):
            return backbone
        known: dict[str, Any] = self._data["backbones"]
        data = _backbone(f"agent {agent!r}: backbone", backbone).model_dump()
        for key, other in known.items():
            if canonical_json(other) == canonical_json(data):
                return key
        stem = (
            re.sub(r"[^A-Za-z0-9_.-]+", "-", backbone.source.rstrip("/").split("/")[-1]) or "model"
        )
        key, count = stem.lower(), 2
        while key in known:
            key, count = f"{stem.lower()}-{count}", count + 1
        known[key] = data
        return key


def _name(name: Name) -> str:
    return name.name if isinstance(name, AgentRef) else str(name)


def _backbone(what: str, backbone: Backbone) -> Backbone:
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f'{what} is {backbone!r:.60}; give a Backbone, such as lm.Backbone("Qwen/Qwen3-0.6B")'
        )
    return backbone


def _tool_name(agent: str, tool: str | Tool) -> str:
    name = tool if isinstance(tool, str) else getattr(tool, "__name__", None)
    if not isinstance(name, str) or (not callable(tool) and not isinstance(tool, str)):
        raise TypeError(
            f"agent {str(agent)!r}: {tool!r:.60} in tools is no tool; give the name of a "
            "registered one, or a function that has a name and returns text"
        )
    return name


def _mutable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

"""`Graph`: the mutable builder of a team. It collects declarations; `compile` checks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentmas.errors import GraphError, missing_attribute, spelled
from latentmas.spec._builder import (
    ELSEWHERE,
    AgentRef,
    EdgeRef,
    Field,
    Name,
    TextFunction,
    check_backbone,
    class_only,
    keyed_backbone,
    mutable,
    name_of,
    problems_of,
    put,
    put_edge,
    text_fields,
    tool_name,
)
from latentmas.spec._graph_file import GraphFile
from latentmas.spec.agent import DEFAULT_LINK
from latentmas.spec.backbone import Backbone
from latentmas.spec.graph_spec import GraphSpec
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.plan import BackboneInfo, Plan

__all__ = ["AgentRef", "EdgeRef", "Graph", "TextFunction"]

_SETTABLE = ("name", "inputs", "rounds", "latent_steps")


class Graph:
    """Builder of a team: backbones, agents, edges, one output.

    Nothing is checked while building, so that `compile` can report all mistakes at once.
    `name`, `inputs`, `rounds` and `latent_steps` may be set later: `graph.rounds = 5`.

    A notebook cell may run again: repeating an identical declaration changes nothing, and
    `replace=True` replaces the old declaration with a changed one.

    Example:
        >>> graph = Graph("pair", inputs=["question"], rounds=2)
        >>> tiny = Backbone("./tiny")
        >>> _ = graph.add_agent("expert", tiny, prompt="Plan: {{ question }}")
        >>> _ = graph.add_agent("learner", tiny, prompt="{{ expert }} {{ question }}")
        >>> _ = graph.connect("expert", "learner")
        >>> graph.output("learner").spec().edges[0].id
        'expert->learner.?'
    """

    @spelled
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
            name: Name of the team, used in titles and file names.
            inputs: Sample fields that prompts may use.
            rounds: Number of rounds R; every agent has one turn per round.
            latent_steps: Default number of latent steps K for agents that do not set their own.
            backbones: Models by name, for agents that refer to them by name.
        """
        self._data: dict[str, Any] = {
            "name": name,
            "inputs": [inputs] if isinstance(inputs, str) else list(inputs),
            "rounds": rounds,
            "latent_steps": latent_steps,
            "backbones": {
                key: check_backbone(f"backbones[{key!r}]", backbone).model_dump()
                for key, backbone in (backbones or {}).items()
            },
            "agents": [],
            "text_sources": [],
            "edges": [],
            "output": [],
        }
        self._named = frozenset(self._data["backbones"])
        self._source: GraphFile | None = None
        self.text_functions: dict[str, TextFunction] = {}
        """Text-source functions by name. They are not part of the spec."""
        self.tools: dict[str, Tool] = {}
        """Tools passed as functions, by name. They are not part of the spec."""

    name = Field[str]("name")
    """Name of the team."""
    inputs = Field[list[str]]("inputs")
    """Sample fields that prompts may use."""
    rounds = Field[int]("rounds")
    """Number of rounds R; every agent has one turn per round."""
    latent_steps = Field[int]("latent_steps")
    """Default number of latent steps K for agents that do not set their own."""

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in ("text_functions", "tools") or name.startswith("_")
        if not own and name not in _SETTABLE and type(self) is Graph:
            raise missing_attribute(self, name, ELSEWHERE, _SETTABLE)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # type checkers still report misspelt attributes

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute(self, name, ELSEWHERE, dir(type(self)))

    @spelled
    def add_agent(
        self,
        name: str,
        backbone: Backbone | str,
        *,
        prompt: str,
        system: str | None = None,
        latent_steps: int | None = None,
        allow_empty: bool = False,
        inner: str | Mapping[str, Any] = DEFAULT_LINK,
        max_new_tokens: int | None = None,
        thinking: bool = False,
        chat_options: Mapping[str, Any] | None = None,
        tools: Iterable[str | Tool] = (),
        tool_style: str = "tags",
        max_tool_calls: int = 5,
        replace: bool = False,
    ) -> AgentRef:
        """Add an agent.

        Args:
            name: Name of the agent, a Python identifier; also the default slot of its edges.
            backbone: The model, or its name in `backbones`.
            prompt: Jinja2 template of the user turn; its variables are inputs or slots.
            system: Jinja2 template of the system turn.
            latent_steps: Number of latent steps K of this agent. None: the graph's.
            allow_empty: Allow `latent_steps=0` (the null channel).
            inner: Kind of the inner link, or a mapping with the fields of `LinkSpec`. The default,
                `soft_token`, has no weights.
            max_new_tokens: Maximum number of tokens the agent generates when it decodes.
            thinking: Value of `enable_thinking` in the chat template.
            chat_options: Further keyword arguments for the chat template.
            tools: Tools the agent may call while it decodes: names of registered tools, or typed
                functions that return text.
            tool_style: Syntax of tool calls: `"tags"` (`<python>…</python>` in the text) or
                `"chat"`, the syntax of the backbone's chat template.
            max_tool_calls: Maximum number of tool calls in one answer.
            replace: Replace an existing agent with the same name.

        Raises:
            TypeError: The backbone or a tool has the wrong type.
        """
        named = [(tool_name(name, tool), tool) for tool in tools]
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
        old = next((a for a in self._data["agents"] if a["name"] == str(name)), agent)
        put(self._data["agents"], agent, lambda a: replace and a["name"] == str(name))
        if replace:
            self._forget_backbone(old["backbone"])
        return AgentRef(str(name))

    def add_text_source(
        self, name: str, source: str | TextFunction, *, replace: bool = False
    ) -> AgentRef:
        """Add text from outside: a constant, or a function of the sample's fields.

        A function is not written to graph files; whoever loads the file passes it to
        `Plan.load(text_functions=…)`.
        """
        text = source if isinstance(source, str) else None
        declared = {"name": name, "text": text}
        put(self._data["text_sources"], declared, lambda s: replace and s["name"] == name)
        if not isinstance(source, str):
            self.text_functions[name] = source
        return AgentRef(name)

    def connect(
        self,
        source: Name,
        target: Name,
        *,
        link: str = DEFAULT_LINK,
        init: str = "default",
        norm: str | None = None,
        share: str | None = None,
        combine: str | None = None,
        replace: bool = False,
        **options: Any,
    ) -> EdgeRef:
        """Let `source` fill a slot of `target` in the same round.

        Args:
            source: An agent or a text source.
            target: `"agent.slot"`; `"agent"`: the one named after the source, else the free one.
            link: Kind of the outer link, or `"text"` for a decoded text message. `soft_token` works
                untrained, and learns a correction (`residual=False`: none); the paper's
                `recursive` must be trained.
            init: Initialisation: `"default"`, `"near_identity"` or `"ridge"`.
            norm: Output norm: `"embedding"` or `"none"`. None: calibrated if the kind can be.
            share: Name of weights that links share.
            combine: How the edges into this slot become one message: `"concat"` or row `"mean"`.
            replace: Replace the edge into that slot or, without a slot, between the two agents.
            **options: Options of the link kind, such as `expansion=2`.
        """
        spec = {"kind": link, "init": init, "norm": norm, "share": share, "options": options}
        return self._edge(source, target, 0, spec, combine, replace)

    def feedback(
        self,
        source: Name,
        target: Name,
        *,
        link: str = DEFAULT_LINK,
        init: str = "default",
        norm: str | None = None,
        share: str | None = None,
        combine: str | None = None,
        replace: bool = False,
        **options: Any,
    ) -> EdgeRef:
        """Let `source` fill a slot of `target` in the *next* round; same arguments as `connect`."""
        spec = {"kind": link, "init": init, "norm": norm, "share": share, "options": options}
        return self._edge(source, target, 1, spec, combine, replace)

    def output(self, agent: Name, *, replace: bool = False) -> Graph:
        """Name the one agent that decodes, in the last round; returns the graph.

        Args:
            agent: Name of the output agent.
            replace: Replace the current output.
        """
        put(self._data["output"], name_of(agent), lambda _: replace)
        return self

    def spec(self) -> GraphSpec:
        """The current declaration, frozen.

        Raises:
            GraphError: An argument has the wrong type (LM100).
        """
        return GraphSpec.parse(self._data)

    @spelled
    def compile(
        self,
        *,
        facts: Mapping[str, BackboneInfo] | None = None,
        models: Mapping[str, object] | None = None,
        tools_at_load: bool = True,
    ) -> Plan:
        """Compile to a [`Plan`][latentmas.Plan]: no weights, no GPU.

        Args:
            facts: Known facts about backbones, by key or source. The others are read from the
                models' configuration files.
            models: For each backbone `given:NAME`, NAME → (model, tokenizer), which the plan keeps.
            tools_at_load: Accept unknown tool names, to be passed to `Plan.load(tools=…)` later; a
                name one letter away from a registered tool's is still an error. False: every tool
                must be registered or passed to `add_agent` as a function.

        Raises:
            GraphError: The graph has problems; the error lists all of them.
        """
        from latentmas.compiler import compile_graph, warn_of_single_braces

        try:
            options: Any = {"tools": self.tools, "tools_at_load": tools_at_load}
            plan = compile_graph(self.spec(), facts=facts, models=models, **options)
        except GraphError as error:
            if self._source is None:
                raise
            raise self._source.locate(error) from None
        warn_of_single_braces(plan.graph)
        return plan.with_functions(
            text_functions=self.text_functions, tools=self.tools, models=models
        )

    def copy(self) -> Graph:
        """An independent copy."""
        return self._derived(self.spec())

    def replace(self, **changes: Any) -> Graph:
        """A copy with some `GraphSpec` fields changed, such as `rounds=5`."""
        return self._derived(self.spec().replace(**changes))

    def as_text(self, *, max_new_tokens: int | None = None) -> Graph:
        """The text twin: the same graph, every edge a text edge.

        Args:
            max_new_tokens: Maximum number of tokens per turn for agents without their own limit.
        """
        return self.replace(**text_fields(self.spec(), max_new_tokens))

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
        graph._data = {key: mutable(value) for key, value in data.items()}
        graph._data["output"] = list(spec.output)
        graph.text_functions = dict(text_functions or {})
        graph.tools = dict(tools or {})
        return graph

    @class_only
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> Graph:
        """A builder that starts from a graph file; same arguments and errors as `GraphSpec.load`.

        Problems of the graph name the line in the file. A file with invalid keys or values is
        compiled as far as possible, so that its other problems are reported too.
        """
        source = GraphFile(Path(path))
        try:
            graph = cls.from_spec(GraphSpec.read(source, trust_remote_code=trust_remote_code))
        except GraphError as error:
            spec = GraphSpec.salvage(source, trust_remote_code=trust_remote_code)
            further = problems_of(cls.from_spec(spec).compile) if spec is not None else ()
            problems = [*error.problems, *further]
            raise source.locate(GraphError(dict.fromkeys(problems), error.graph)) from None
        graph._source = source
        return graph

    def save(self, path: str | Path) -> Path:
        """Write the declaration as YAML (`.yaml`, `.yml`) or JSON (`.json`).

        Raises:
            DataError: The suffix is not one of these.
        """
        return self.spec().save(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.spec() == other.spec()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        agents = ", ".join(agent["name"] for agent in self._data["agents"])
        edges = len(self._data["edges"])
        return f"<Graph {self._data['name']!r}: {agents or 'no agents'}; {edges} edges>"

    def _derived(self, spec: GraphSpec) -> Graph:
        """A graph with this one's functions and file but a different declaration."""
        graph = self.from_spec(spec, text_functions=self.text_functions, tools=self.tools)
        graph._source = self._source
        return graph

    def _edge(
        self,
        source: Name,
        target: Name,
        delay: int,
        link: dict[str, Any],
        combine: str | None,
        replace: bool,
    ) -> EdgeRef:
        agent, _, slot = name_of(target).partition(".")
        edge = EdgeRef(name_of(source), agent, slot or None, delay)
        put_edge(self._data["edges"], edge._asdict() | {"link": link, "combine": combine}, replace)
        return edge

    def _forget_backbone(self, key: str) -> None:
        """Drop a backbone that no agent uses any more, unless it was declared by name."""
        if key not in self._named and all(a["backbone"] != key for a in self._data["agents"]):
            self._data["backbones"].pop(key, None)

    def _backbone_key(self, agent: str, backbone: Backbone | str) -> str:
        if isinstance(backbone, str):
            return backbone
        return keyed_backbone(f"agent {agent!r}: backbone", backbone, self._data["backbones"])

"""`GraphSpec`: the frozen, serialisable declaration of a team."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_serializer, field_validator

from latentmas.errors import DataError, GraphError, LatentMASError, Problem, UnknownNameError
from latentmas.safe_data import parse_json
from latentmas.spec._base import Frozen, iter_invalid_values
from latentmas.spec._graph_file import GraphFile
from latentmas.spec._keys import correct_keys, form_problem, value_problems, without_harmless
from latentmas.spec.agent import AgentSpec, EdgeSpec, TextSourceSpec
from latentmas.spec.backbone import Backbone
from latentmas.spec.files import GRAPH_SUFFIXES, resolve_files, write_graph_file
from latentmas.spec.remote_code import ALLOW, code_wanted

__all__ = ["GraphSpec"]

MOST_AGENTS = 512
"""Maximum number of agents of a graph; also of inputs, text sources and backbones."""
MOST_EDGES = 4096


class GraphSpec(Frozen):
    """The user's declaration: backbones, agents, edges, output, rounds. Pure data."""

    version: Literal[1] = 1
    """Version of this format."""
    name: str = "team"
    """Name of the graph."""
    inputs: tuple[str, ...] = Field(default=(), max_length=MOST_AGENTS)
    """Names of the sample fields that prompts may use."""
    rounds: int = 3
    """Number of rounds R; every agent has one turn per round."""
    latent_steps: int = 16
    """Default number of latent steps K for agents that do not set their own."""
    backbones: dict[str, Backbone] = Field(default_factory=dict, max_length=MOST_AGENTS)
    """Backbones by key."""
    agents: tuple[AgentSpec, ...] = Field(default=(), max_length=MOST_AGENTS)
    """Agents, in the order of their declaration."""
    text_sources: tuple[TextSourceSpec, ...] = Field(default=(), max_length=MOST_AGENTS)
    """Sources of constant or computed text."""
    edges: tuple[EdgeSpec, ...] = Field(default=(), max_length=MOST_EDGES)
    """Edges between agents, and from text sources."""
    output: tuple[str, ...] = Field(default=(), max_length=MOST_AGENTS)
    """The agent that decodes in the last round. A valid graph has exactly one."""

    @field_validator("output", mode="before")
    @classmethod
    def _one_output(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_serializer("output")
    def _plain_output(self, value: tuple[str, ...]) -> str | list[str]:
        return value[0] if len(value) == 1 else list(value)

    def agent(self, name: str) -> AgentSpec:
        """The agent with that name; UnknownNameError if there is none."""
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise UnknownNameError("agent", name, (agent.name for agent in self.agents))

    def steps_of(self, agent: AgentSpec) -> int:
        """Latent steps K of `agent`."""
        return self.latent_steps if agent.latent_steps is None else agent.latent_steps

    def replace(self, **changes: Any) -> GraphSpec:
        """A validated copy with some fields changed."""
        data = self.model_dump() | {k: _plain(v) for k, v in changes.items()}
        return GraphSpec.parse(data)

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text, from which `from_json` restores an equal spec."""
        return self.model_dump_json(indent=indent, exclude_defaults=False)

    @classmethod
    def from_json(cls, text: str, *, trust_remote_code: bool = False) -> GraphSpec:
        """Restore a spec from the output of `to_json`.

        Args:
            text: JSON text.
            trust_remote_code: Accept a spec that runs code from a model's repository.

        Raises:
            GraphError: The text is not JSON or not a graph (LM100), or it asks to run such code
                (LM504).
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise GraphError([form_problem("graph", f"not JSON: {error}")]) from error
        return cls._from_outside(data, trust_remote_code)

    @classmethod
    def _from_outside(cls, data: Any, trust_remote_code: bool) -> GraphSpec:
        """Validate plain data read from a file."""
        spec = cls.parse(data)
        if not trust_remote_code:
            wanted = code_wanted(spec.backbones)
            problems = [
                Problem("LM504", f"backbone {key}", f"the file asks to run {what}", ALLOW)
                for key, what in wanted.items()
            ]
            if problems:
                raise GraphError(problems, spec.name)
        return spec

    @classmethod
    def parse(cls, data: Any) -> GraphSpec:
        """Validate plain data.

        Raises:
            GraphError: A field is invalid; one LM100 problem for each.
        """
        _check_plain(data)
        data, problems = correct_keys(data, cls)
        try:
            spec = cls.model_validate(data)
        except ValidationError as error:
            raise GraphError([*problems, *value_problems(error)]) from error
        if problems:
            raise GraphError(problems, spec.name)
        return spec

    def save(self, path: str | Path) -> Path:
        """Write a graph file: YAML (`.yaml`, `.yml`) or JSON (`.json`).

        Raises:
            DataError: The suffix is not one of these.
        """
        if Path(path).suffix.lower() not in GRAPH_SUFFIXES:
            raise DataError(
                f"cannot write graph file {str(path)!r}: the suffix must be .yaml, .yml or .json"
            )
        return write_graph_file(Path(path), self.as_file())

    def as_file(self) -> dict[str, Any]:
        """What a graph file holds: all but the defaults, and the kind of every link.

        Kinds are named so that a file keeps its meaning if another kind becomes the default.
        """
        data = self.model_dump(mode="json", exclude_defaults=True)
        for agent, spec in zip(data.get("agents", ()), self.agents, strict=True):
            agent["inner"] = {"kind": spec.inner.kind} | agent.get("inner", {})
        for edge, declared in zip(data.get("edges", ()), self.edges, strict=True):
            edge["link"] = {"kind": declared.link.kind} | edge.get("link", {})
        return data

    @classmethod
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> GraphSpec:
        """Read a graph file (YAML or JSON).

        An agent may use `prompt_file: x.jinja` instead of `prompt`, and a backbone
        `chat_template_file` instead of `chat_template`; a backbone's source and tokenizer may begin
        with `./`. All are relative to the graph file.

        Args:
            path: Path of the file.
            trust_remote_code: Accept a file that runs code from a model's repository.

        Raises:
            DataError: The file cannot be read.
            GraphError: The content is not a graph (all problems at once) or asks to run such code.
        """
        source = GraphFile(Path(path))
        try:
            return cls.read(source, trust_remote_code=trust_remote_code)
        except GraphError as error:
            raise source.locate(error) from None

    @classmethod
    def read(cls, source: GraphFile, *, trust_remote_code: bool = False) -> GraphSpec:
        """Same as `load`, for a file that the caller has opened to look up line numbers."""
        data = source.data()
        _check_plain(data)
        data, slips = correct_keys(data, cls)
        data, unread = resolve_files(data, source.path.parent)
        problems = [*unread, *slips]
        try:
            spec = cls._from_outside(data, trust_remote_code)
        except GraphError as error:
            raise GraphError([*problems, *error.problems], error.graph) from error
        if problems:
            raise GraphError(problems, spec.name)
        return spec

    @classmethod
    def salvage(cls, source: GraphFile, *, trust_remote_code: bool = False) -> GraphSpec | None:
        """The valid part of a faulty graph file, used to look for further problems.

        Returns:
            The declaration without the invalid keys and values; None if other parts depend on
            them, or if compiling it could run code that has not been allowed.
        """
        try:
            data, unread = resolve_files(correct_keys(source.data(), cls)[0], source.path.parent)
            spec = None if unread else cls._salvaged(data)
        except (LatentMASError, ValidationError):
            return None
        wanted = spec is not None and code_wanted(spec.backbones)
        return None if wanted and not trust_remote_code else spec

    @classmethod
    def _salvaged(cls, data: Any) -> GraphSpec | None:
        if any(iter_invalid_values(data)):
            return None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            rest = without_harmless(data, error)
            return None if rest is None else cls.model_validate(rest)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of graph files, for editors' completion."""
        schema = cls.model_json_schema(mode="validation")
        agent = schema["$defs"]["AgentSpec"]
        agent["properties"]["prompt_file"] = {
            "type": "string",
            "description": "File that holds the prompt, relative to the graph file.",
        }
        agent["required"] = [name for name in agent["required"] if name != "prompt"]
        agent["anyOf"] = [{"required": ["prompt"]}, {"required": ["prompt_file"]}]
        schema["$defs"]["Backbone"]["properties"]["chat_template_file"] = {
            "type": "string",
            "description": "File that holds the chat template, relative to the graph file.",
        }
        quantization = schema["$defs"]["Backbone"]["properties"]["quantization"]
        quantization["anyOf"].insert(0, schema["$defs"]["Quantization"]["properties"]["kind"])
        output = schema["properties"]["output"]
        schema["properties"]["output"] = {"anyOf": [{"type": "string"}, output]}
        backbones = schema["properties"]["backbones"]
        whole = backbones["additionalProperties"]
        backbones["additionalProperties"] = {"anyOf": [{"type": "string"}, whole]}
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _plain(value: Any) -> Any:
    if isinstance(value, Frozen):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _check_plain(data: Any) -> None:
    """Reject data that a graph file cannot hold."""
    odd = [form_problem(path, message) for path, message in iter_invalid_values(data)]
    if odd:
        raise GraphError(odd)

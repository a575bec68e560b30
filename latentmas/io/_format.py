"""Schema of a saved team's manifest, `latentmas.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from latentmas.errors import GraphError, LatentMASError, WeightsError
from latentmas.io._newer import is_newer, say_left_out, upgrade, without_unknown
from latentmas.io.storage.folder import LINKS, MANIFEST, part
from latentmas.plan import BackboneInfo, LinkPlan, Plan
from latentmas.safe_data import check_name, inside, parse_json, read_bounded, read_header, read_json
from latentmas.spec import ALLOW, LARGEST_PROMPT, GraphSpec, LoRA, code_wanted

__all__ = [
    "HEADER",
    "VERSION",
    "Manifest",
    "compile_known",
    "file_digest",
    "inside",
    "plan_of_links",
    "read_manifest",
]

VERSION = 1
HEADER = "latentmas"
"""Metadata key in a file of links."""
LARGEST_MANIFEST = 16 * 2**20
_UNREADABLE = (OSError, ValidationError, GraphError, ValueError, TypeError, RecursionError)


class Manifest(BaseModel):
    """Content of `latentmas.json`. The graph refers to prompts as files in the same folder."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    format: Literal["latentmas"] = "latentmas"
    version: int = Field(default=VERSION, ge=1, strict=True)
    latentmas: str
    """Version of latentmas that wrote it."""
    digest: str
    """Digest of the compiled plan."""
    graph: dict[str, Any]
    """The graph, with each prompt as a file name."""
    facts: dict[str, BackboneInfo]
    """Facts about each backbone, by key."""
    commits: dict[str, str] = Field(default_factory=dict)
    """Hub commit that each backbone was loaded from, by key."""
    links: tuple[LinkPlan, ...]
    """The link table, for tools that do not use this package."""
    weights: str | None = None
    """SHA-256 of `links.safetensors`."""
    adapters: dict[str, LoRA] = Field(default_factory=dict)
    """Adapters of agents' own, by agent."""
    adapter_weights: str | None = None
    """SHA-256 of `adapters.safetensors`; None where no agent has an adapter of its own."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is said of adapters where no agent has one."""
        data: dict[str, Any] = write(self)
        return {k: v for k, v in data.items() if v or not k.startswith("adapter")}


def read_manifest(folder: Path, *, trust_remote_code: bool = False) -> tuple[Manifest, Plan]:
    """Read and check a team's manifest, and compile its graph with the recorded facts.

    Args:
        folder: the team's folder.
        trust_remote_code: accept a team whose backbones run code from their repositories.

    Raises:
        WeightsError: LM502 when it cannot be read, LM504 when it asks for such code, LM501 when
            the graph does not match the digest.
    """
    path = part(folder, MANIFEST)
    data: Any = {}
    try:
        if not inside(folder, path):
            raise WeightsError(f"LM502 {MANIFEST} points outside the folder {str(folder)!r}")
        data = read_json(path, LARGEST_MANIFEST)
        newer = isinstance(data, dict) and is_newer(data, VERSION)
        left_out: list[str] = []
        if newer:
            data, left_out = without_unknown(Manifest, data)
        manifest = Manifest.model_validate(data)
        graph = _with_prompts(manifest.graph, folder)
        if newer:
            graph, more = without_unknown(GraphSpec, graph)
            left_out += [f"graph.{name}" for name in more]
        spec = GraphSpec.parse(graph)
        if not trust_remote_code:
            check_trust(path, spec)
        plan = compile_known(spec, manifest.facts)
    except FileNotFoundError as error:
        raise WeightsError(
            f"LM502 {str(folder)!r} is not a saved team: it lacks {error.filename}"
        ) from error
    except _UNREADABLE as error:
        newer = isinstance(data, dict) and is_newer(data, VERSION)
        hint = f"; a newer version wrote it: {upgrade(data)}" if newer else ""
        raise WeightsError(f"LM502 {path} cannot be read: {error}{hint}") from error
    if left_out:
        say_left_out(str(path), data, left_out)
    if (plan.digest != manifest.digest and not newer) or plan.links != manifest.links:
        raise _changed(path, manifest, plan, part(folder, LINKS))
    return manifest, plan


def _changed(path: Path, manifest: Manifest, plan: Plan, links: Path) -> WeightsError:
    """Build the error for a graph that was changed after saving, with the changes."""
    saved = plan_of_links(links)
    changes = saved.diff(plan) if saved is not None else []
    if plan.digest == manifest.digest:
        found = "the link table differs from the one that the graph compiles to"
        changes = _link_changes(manifest.links, plan.links)
    else:
        ours, theirs = _told_apart(plan.digest, manifest.digest)
        found = f"the graph compiles to digest {ours}, but the file says {theirs}"
    message = (
        f"LM501 {path}: {found}; it was edited, or written by a different version "
        f"({manifest.latentmas})"
    )
    if changes:
        message += (
            ":\n  " + "\n  ".join(changes) + "\nundo the change, or load the changed graph "
            "itself and then its links with system.load_links(folder)"
        )
    return WeightsError(message)


def _told_apart(a: str, b: str) -> tuple[str, str]:
    """Two digests, shortened if the short forms differ."""
    return (a[:12], b[:12]) if a[:12] != b[:12] else (a, b)


def _link_changes(told: Sequence[LinkPlan], compiled: Sequence[LinkPlan]) -> list[str]:
    """Differences between the link table of a manifest and the one that its graph compiles to."""
    theirs, ours = ({link.id: link for link in table} for table in (told, compiled))
    lines = [f"the file lacks link {id}" for id in ours if id not in theirs]
    lines += [
        f"the file has a link {id:.100} that the graph does not have" for id in theirs.keys() - ours
    ]
    for id in (id for id in ours if id in theirs):
        before, now = theirs[id].model_dump(), ours[id].model_dump()
        lines += [
            f"link {id}: the file says {field} {before[field]!r:.80}, the graph {now[field]!r:.80}"
            for field in now
            if before[field] != now[field]
        ]
    return sorted(lines)[:20] or ["the links are in a different order"]


def plan_of_links(path: Path) -> Plan | None:
    """The plan recorded in a file of links; None if it cannot be read."""
    try:
        told = parse_json(read_header(path).metadata[HEADER])
        facts = {key: BackboneInfo.model_validate(info) for key, info in told["facts"].items()}
        return compile_known(GraphSpec.parse(told["graph"]), facts)
    except (*_UNREADABLE, LatentMASError, LookupError, AttributeError):
        return None


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compile_known(graph: GraphSpec, facts: Mapping[str, BackboneInfo]) -> Plan:
    """Compile the graph of a file with the facts in that file; nothing else is read.

    Raises:
        WeightsError: LM502 when a backbone's facts are missing. Its configuration is not read
            instead, because reading it may run code.
        GraphError: the graph has problems.
    """
    from latentmas.compiler import compile_graph  # imported late: it imports torch

    unknown = [
        key
        for key, spec in graph.backbones.items()
        if key not in facts or (spec.adapter is not None and facts[key].adapter is None)
    ]
    if unknown:
        where = f"graph {graph.name!r:.100}, backbone {unknown[0]!r:.100}"
        raise WeightsError(f"LM502 {where}: the file lacks its facts")
    return compile_graph(graph, facts=facts)


def check_trust(path: Path, graph: GraphSpec) -> None:
    """Refuse a graph from a file that asks to run code from a model's repository.

    Raises:
        WeightsError: LM504, naming the backbone.
    """
    for key, what in code_wanted(graph.backbones).items():
        raise WeightsError(f"LM504 {path}: backbone {key!r} asks to run {what}; {ALLOW}")


def _with_prompts(graph: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    agents = []
    for agent in graph.get("agents", []):
        agent = dict(agent)
        for key in ("prompt", "system"):
            if isinstance(agent.get(key), dict):
                agent[key] = _prompt(folder, str(agent[key].get("file")))
        agents.append(agent)
    return {**graph, "agents": agents}


def _prompt(folder: Path, name: str) -> str:
    path = part(folder, check_name(name))
    if not inside(folder, path):
        raise WeightsError(f"LM502 prompt file {name!r} points outside the folder")
    # Decode bytes instead of reading text, so that line endings are kept.
    return read_bounded(path, LARGEST_PROMPT).decode("utf-8")

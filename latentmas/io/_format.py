"""The artefact's manifest, `latentmas.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from latentmas.compiler import compile_graph
from latentmas.errors import GraphError, WeightsError
from latentmas.plan import BackboneInfo, LinkPlan, Plan
from latentmas.spec import GraphSpec

__all__ = ["LINKS", "MANIFEST", "Manifest", "read_manifest"]

MANIFEST = "latentmas.json"
LINKS = "links.safetensors"
LARGEST_MANIFEST = 16 * 2**20


class Manifest(BaseModel):
    """What `latentmas.json` holds. Prompts are files beside it: `prompts/<agent>.jinja`."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["latentmas"] = "latentmas"
    version: Literal[1] = 1
    latentmas: str
    """Version of the package that wrote it."""
    digest: str
    """Digest of the compiled plan."""
    graph: dict[str, Any]
    """The graph; each prompt is the name of its file."""
    facts: dict[str, BackboneInfo]
    """What was known of each backbone, by key."""
    links: tuple[LinkPlan, ...]
    """The link table, for readers without the package."""


def read_manifest(folder: Path) -> tuple[Manifest, Plan]:
    """Read and check a team's manifest, and compile its graph with the facts it was made with.

    Raises:
        WeightsError: LM502 when it cannot be read, LM501 when graph and digest do not agree.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise WeightsError(f"LM502 {path}: larger than any manifest; it is not read")
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
        graph = GraphSpec.parse(_with_prompts(manifest.graph, folder))
        plan = compile_graph(graph, facts=manifest.facts)
    except FileNotFoundError as error:
        raise WeightsError(
            f"LM502 {str(folder)!r} is no saved team: it lacks {error.filename}"
        ) from error
    except (OSError, ValidationError, GraphError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error}") from error
    if plan.digest != manifest.digest:
        raise WeightsError(
            f"LM501 {path}: the graph compiles to digest {plan.digest[:12]}, but the file says "
            f"{manifest.digest[:12]}; it was edited, or written by another version "
            f"({manifest.latentmas})"
        )
    return manifest, plan


def _with_prompts(graph: dict[str, Any], folder: Path) -> dict[str, Any]:
    agents = []
    for agent in graph.get("agents", []):
        agent = dict(agent)
        for key in ("prompt", "system"):
            if isinstance(agent.get(key), dict):
                agent[key] = _prompt(folder, str(agent[key].get("file")))
        agents.append(agent)
    return {**graph, "agents": agents}


def _prompt(folder: Path, name: str) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise WeightsError(f"LM502 prompt file {name!r} leaves the folder")
    return path.read_bytes().decode("utf-8")  # line ends as they are

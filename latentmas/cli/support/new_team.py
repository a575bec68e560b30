"""Files of a new team: a graph file from a template, and its prompts."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from latentmas import templates
from latentmas.atomic import write_text_atomically
from latentmas.errors import LatentMASError
from latentmas.spec import Backbone, Graph, GraphSpec

__all__ = [
    "DEMO_BACKBONES",
    "graph_of",
    "roles_of",
    "schema_text",
    "summary_of",
    "team_files",
    "write_files",
]

DEMO_BACKBONES = tuple(
    f"package:latentmas/demo/backbones/{name}" for name in ("planner", "critic", "solver")
)
"""Small models that come with the package, of widths 64, 96 and 48."""
EXPERTS = ("math", "code", "science")
OTHERS = ("first", "second", "third")
"""Names for roles that take several agents: experts, and any others."""

SCHEMA = "graph.schema.json"
"""Written beside graph files; their first line names it for editors."""
_HEAD = """\
# yaml-language-server: $schema=./graph.schema.json
# A team from the template {template!r}; edit it as you like. Its prompts are in {prompts}/.
# `latentmas check` finds every mistake; editors use the schema above for completion and checks.
"""


def summary_of(template: str) -> str:
    """The first line of a template's docstring."""
    lines = (inspect.getdoc(templates.get(template)) or "").splitlines()
    return lines[0] if lines else ""


def roles_of(template: str) -> dict[str, tuple[str, ...]]:
    """The backbones that a template takes: role → its agents' names; none for a preset.

    A role that takes a mapping has several agents, any other one of its own name.
    """
    parameters = inspect.signature(templates.get(template)).parameters.values()
    needed = [p for p in parameters if "Backbone" in str(p.annotation)]
    several = {"experts": EXPERTS}
    return {
        p.name: several.get(p.name, OTHERS) if "Mapping" in str(p.annotation) else (p.name,)
        for p in needed
    }


def graph_of(template: str, name: str, sources: Iterable[str]) -> Graph:
    """A template's graph; backbones are taken in turn, again from the first when they run out."""
    supply = cycle(sources)
    backbones: dict[str, Any] = {}
    for role, agents in roles_of(template).items():
        found = {agent: Backbone(next(supply)) for agent in agents}
        backbones[role] = found[role] if agents == (role,) else found
    return templates.get(template)(**backbones).replace(name=name)


def team_files(template: str, name: str, folder: Path, backbones: Iterable[str]) -> dict[Path, str]:
    """Path → text of the graph file and of its prompts.

    Args:
        template: a name in the registry.
        name: name of the graph and of its file.
        folder: where the files will be.
        backbones: hub ids or folders; the demo's when there are none.
    """
    sources = [_relative(source, folder) for source in backbones] or list(DEMO_BACKBONES)
    spec = graph_of(template, name, sources).spec()
    data = spec.model_dump(mode="json", include={"name", "inputs", "rounds", "latent_steps"})
    data |= spec.as_file()
    prompts = f"prompts/{name}"  # a folder for each team: several may be written beside each other
    files: dict[Path, str] = {}
    for agent in data["agents"]:
        agent["prompt_file"] = f"{prompts}/{agent['name']}.jinja"
        files[folder / agent["prompt_file"]] = agent.pop("prompt")
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    graph = {folder / f"{name}.yaml": _HEAD.format(template=template, prompts=prompts) + text}
    return graph | files | {folder / SCHEMA: schema_text()}


def schema_text() -> str:
    """The JSON Schema of graph files."""
    return json.dumps(GraphSpec.json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_files(files: dict[Path, str], *, force: bool) -> None:
    """Write all files, or none if one exists already; the schema is always replaced.

    Raises:
        LatentMASError: naming the existing files, unless `force`.
    """
    there = [str(path) for path in files if path.exists() and path.name != SCHEMA]
    if there and not force:
        raise LatentMASError(
            f"not overwritten: {', '.join(there)}; --force replaces existing files"
        )
    for path, text in files.items():
        write_text_atomically(path, text)


def _relative(source: str, folder: Path) -> str:
    """A local model folder as seen from the graph file; anything else as it is."""
    local = source.startswith(("./", "../")) or Path(source).is_dir()
    if not local or Path(source).is_absolute():
        return source
    path = Path(os.path.relpath(source, folder)).as_posix()
    return path if path.startswith("../") else f"./{path}"

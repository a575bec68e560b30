"""`load_release`: load a published RecursiveMAS system as an instance of a template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas import templates
from latentmas.compiler import compile_graph
from latentmas.errors import UnknownNameError, WeightsError
from latentmas.interop._pickles import read_link
from latentmas.interop._sources import FolderSource, HubSource, Source
from latentmas.interop._styles import Style, find_style
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.runtime.loading.init_weights import meta_links
from latentmas.spec import Backbone, DType, GraphSpec
from latentmas.tools import Tool

__all__ = ["load_release"]

INNER_TYPES = ("ln_res_adapter", "2layer_ln_res")
OUTER_TYPES = ("outer_ln_res_adapter", "2layer_ln_res")
LINK_TASKS = {"math": "math", "choice": "math", "search": "math", "code": "code"}
"""Task of the prompts → task that the published links were trained for."""


def load_release(
    style: str,
    source: str | Path | None = None,
    *,
    task: str = "math",
    prompts: templates.Prompts | None = None,
    rounds: int | None = None,
    latent_steps: int | None = None,
    device: str | Mapping[str, str] = "cpu",
    dtype: DType | None = None,
    revision: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    executor: str = "auto",
    tools: Mapping[str, Tool] | None = None,
) -> System:
    """Load a published RecursiveMAS system (arXiv 2604.25917).

    The result is an ordinary system: a template with the published backbones and links. Roles with
    identical model files share one loaded backbone. As in the published code, the links' outputs
    are not calibrated.

    Args:
        style: `sequential_light`, `sequential_scaled`, `mixture`, `distillation` or `deliberation`.
        source: a folder with `outer/` and one subfolder per role; None uses the repositories of
            the organisation RecursiveMAS on the Hub and downloads only the files it needs.
        task: task of prompts and links: `"math"`, `"code"`, `"choice"` or `"search"` (the last
            two use the math links, as published).
        prompts: agent → prompt, or the file of a prompt pack; None uses the template's prompts.
            `latentmas import-prompts` extracts the published prompts.
        rounds: number of rounds R; None uses the template's. With 1, feedback links are not read.
        latent_steps: number of latent steps K; None uses the template's.
        device: device of all agents, or a mapping by agent.
        dtype: data type of the backbones; None uses that of the checkpoints.
        revision: branch, tag or commit on the Hub, for all repositories or by role (including
            `"outer"`). It is resolved to a commit once, which is saved with the system.
        trust_remote_code: run Python code from the models' repositories.
        executor: name of the default executor.
        tools: tools by name that replace registered ones, for `deliberation`.

    Raises:
        UnknownNameError: the style or task is unknown.
        DataError: a prompt pack cannot be read.
        WeightsError: LM502 or LM503 when a file is missing, damaged or unsafe.
    """
    published = find_style(style)
    if task not in LINK_TASKS:
        raise UnknownNameError("task", task, LINK_TASKS)
    roles = (*published.roles, "outer")
    sources = {role: _source(published, source, role, revision) for role in roles}
    backbones = _backbones(sources, dtype or "auto", trust_remote_code)
    options = {"rounds": rounds, "latent_steps": latent_steps}
    graph = _graph(published, style, backbones, task=task, prompts=prompts, **options)
    plan = compile_graph(graph)
    files = _link_files(published, plan, sources, LINK_TASKS[task])
    sketches = meta_links(plan)
    weights = {id: read_link(path, sketches[id]) for id, path in files.items()}
    system = System.load(
        plan, device=device, dtype=None, executor=executor, tools=tools, start=False
    )
    for id, state in weights.items():
        system.link(id).load_state_dict(state)
    return system


def _source(
    style: Style, source: str | Path | None, role: str, revision: str | Mapping[str, str] | None
) -> Source:
    if source is not None:
        root = Path(source).expanduser()
        if not root.is_dir():
            raise WeightsError(f"LM502 {str(source)!r} is not a folder; a release has one per role")
        return FolderSource(root, role)
    wanted = revision if isinstance(revision, str) or revision is None else revision.get(role)
    return HubSource(style.outer if role == "outer" else style.roles[role], wanted)


def _backbones(
    sources: Mapping[str, Source], dtype: DType, trust_remote_code: bool
) -> dict[str, Backbone]:
    """A backbone for each role; roles with identical model files share the first one's."""
    found: dict[str, Backbone] = {}
    by_digest: dict[str, Backbone] = {}
    roles = {role: source for role, source in sources.items() if role != "outer"}
    for role, source in roles.items():
        own = source.backbone(dtype, trust_remote_code=trust_remote_code)
        found[role] = by_digest.setdefault(source.model_digest(), own)
    return found


def _graph(style: Style, name: str, backbones: Mapping[str, Backbone], **options: Any) -> GraphSpec:
    given = {key: value for key, value in options.items() if value is not None}
    arguments: dict[str, Any] = dict(backbones)
    if style.template == "mixture":
        arguments = {"summarizer": arguments.pop("summarizer"), "experts": arguments}
    if style.template == "deliberation":
        arguments["tool_caller"] = arguments.pop("toolcaller")
    template = templates.get(style.template)
    kinds = {"link": "recursive", "inner": "recursive"}
    spec = template(**arguments, **kinds, **given).replace(name=name.replace("_", "-")).spec()
    plain = {"norm": "none"}  # the published links have no output calibration
    agents = [a.model_copy(update={"inner": a.inner.model_copy(update=plain)}) for a in spec.agents]
    edges = [e.model_copy(update={"link": e.link.model_copy(update=plain)}) for e in spec.edges]
    return spec.replace(agents=agents, edges=edges)


def _link_files(
    style: Style, plan: Plan, sources: Mapping[str, Source], task: str
) -> dict[str, Path]:
    """The file of each link of the plan."""
    planned = {link.id for link in plan.links}
    files = {
        f"inner.{role}": _inner_file(sources[role], task)
        for role in style.roles
        if f"inner.{role}" in planned
    }
    outer = sources["outer"]
    entries = _outer_entries(outer, task)
    listed = {key: entry for entry in entries if isinstance(key := entry.get("legacy_key"), str)}
    for key, edge in style.links.items():
        id = f"outer.{edge}"
        if id not in planned:
            continue
        if key not in listed:
            there = ", ".join(sorted(listed)) or "none"
            raise WeightsError(f"LM503 {outer.name}: link {key!r} is not listed; links: {there}")
        entry = listed[key]
        _check_type(outer, entry.get("adapter_type"), OUTER_TYPES)
        files[id] = outer.path(outer.checked(entry.get("filename")))
    return files


def _inner_file(source: Source, task: str) -> Path:
    """The inner link's file: named by the manifest, named after the task, or the only one."""
    names = _of_task(source, "innerlink_config.json", task)
    config, named = "adapter_config.json", f"adapter_config({task}).json"
    if config in names:
        config = source.checked(names[config])
    elif named in source.files():
        config = named
    described = source.json(config)
    _check_type(source, described.get("adapter_type", INNER_TYPES[0]), INNER_TYPES)
    if "adapter.pt" in names:
        return source.path(source.checked(names["adapter.pt"]))
    own = f"adapter({task}).pt"
    return source.path(source.checked(own if own in source.files() else "adapter.pt"))


def _outer_entries(source: Source, task: str) -> list[dict[str, Any]]:
    manifest = "outerlink_config.json"
    if manifest not in source.files():
        raise WeightsError(f"LM502 {source.name} has no {manifest}, which lists the outer links")
    top = source.json(manifest)
    entries = (_of_task(source, manifest, task) if "tasks" in top else top).get("adapters")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise WeightsError(f"LM502 {source.name}: {manifest} lacks `adapters`, a list of objects")
    return entries


def _of_task(source: Source, manifest: str, task: str) -> dict[str, Any]:
    """A manifest's entry for a task; empty if it has no entries by task."""
    tasks = source.json(manifest).get("tasks")
    if tasks is None:
        return {}
    found = tasks.get(task) if isinstance(tasks, dict) else None
    if not isinstance(found, dict):
        there = ", ".join(sorted(tasks)) if isinstance(tasks, dict) else type(tasks).__name__
        raise WeightsError(f"LM502 {source.name}: {manifest} has no task {task!r}, only: {there}")
    return found


def _check_type(source: Source, found: object, known: tuple[str, ...]) -> None:
    if found not in known:
        raise WeightsError(
            f"LM503 {source.name}: link type {found!r:.100} is not a published type; "
            f"known: {', '.join(known)}"
        )

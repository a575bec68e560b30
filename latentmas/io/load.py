"""Load a saved team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentmas.backbones import read_info
from latentmas.compiler import compile_graph
from latentmas.errors import WeightsError
from latentmas.io._format import Manifest, file_digest, inside, read_manifest
from latentmas.io._hub import find_team
from latentmas.io._swap import Swap, swap_backbones
from latentmas.io._training import read_history, read_scores
from latentmas.io.storage.folder import ADAPTERS, LINKS, part
from latentmas.io.storage.steady import read_steadily
from latentmas.io.weights.adapters import fill_adapters, read_adapters
from latentmas.io.weights.tensors import load_tensors
from latentmas.plan import BackboneInfo, DeviceMap, MaxMemory, Plan
from latentmas.runtime import Origin, Score, System, TrainingRecord
from latentmas.runtime.loading.init_weights import meta_links
from latentmas.runtime.loading.placement import adapter_key
from latentmas.safe_data import compare_header, read_header
from latentmas.spec import Backbone, LoRA, TextFunction
from latentmas.tools import Tool

__all__ = ["check_links", "facts_at", "load_link_weights", "load_system", "read_links"]


@dataclass(frozen=True)
class _SavedTeam:
    """A consistent snapshot of everything that is read from a saved team."""

    manifest: Manifest
    plan: Plan
    """The plan as it was saved."""
    state: Mapping[str, Tensor]
    """Link weights, checked against the plan and the manifest."""
    adapters: Mapping[str, Tensor]
    """Weights of agents' own adapters."""
    history: list[TrainingRecord]
    scores: list[Score]


def load_system(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | Mapping[str, str] | None = None,
    backbones: Mapping[str, Swap] | None = None,
    dtype: str | None = None,
    executor: str = "auto",
    text_functions: Mapping[str, TextFunction] | None = None,
    tools: Mapping[str, Tool] | None = None,
    models: Mapping[str, object] | None = None,
    reuse: System | None = None,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    tensor_parallel: int = 1,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> System:
    """Load a saved team and its backbones, which come from their declared sources.

    Agents get the adapters that they have learned, which needs the extra `peft`.

    A backbone from the Hub is loaded at the commit recorded when the team was saved.

    Args:
        source: a folder that `save_system` wrote, or a repository on the Hub.
        revision: branch, tag or commit of that repository.
        device: device of all agents, or a mapping by agent; None leaves reused backbones on their
            device and loads the rest on the CPU.
        backbones: replacements of equal width, each a `Backbone` or a source, keyed by agent, by
            name in the graph, or by old source.
        dtype: data type of the backbones, overriding their declarations; None keeps that of reused
            backbones.
        executor: name of the default executor.
        text_functions: function of each text source, by name.
        tools: tools by name; they replace or add to the registered ones.
        models: for each backbone `given:NAME`, NAME → (model, tokenizer).
        reuse: a system whose loaded backbones are shared if declaration, device and dtype are the
            same; the rest are loaded.
        device_map: strategy or module map that puts the layers of backbones on several devices of
            this process, for all agents or by agent.
        max_memory: memory that `device_map` may use of each device.
        tensor_parallel: number of processes, started by `torchrun`, that hold each backbone
            together.
        token: Hub access token; None uses HF_TOKEN or the token stored by `hf auth login`.
        trust_remote_code: accept a team whose backbones run code from their repositories.

    Raises:
        WeightsError: LM501 when a backbone has changed since or has a different width, LM502 when
            the source is not a saved team, LM503 when weights are missing, unexpected, of the wrong
            shape or not finite, LM504 when the team asks for code of a model's repository, LM511
            when it cannot be downloaded.
        GraphError: a backbone's configuration cannot be read.
        UnknownNameError: `backbones` names something that the team does not have.
    """
    found = find_team(source, revision=revision, token=token)
    try:
        saved = read_steadily(lambda: _read(found.folder, trust_remote_code), found.folder)
    except MemoryError as error:
        raise WeightsError(
            f"LM502 {str(found.folder)!r} cannot be read: there is not enough memory"
        ) from error
    swaps, given = backbones or {}, models or {}
    plan, commits = _plan_now(found.folder, saved.manifest, saved.plan, swaps, given)
    system = System.load(
        plan,
        device=device,
        dtype=dtype,
        executor=executor,
        text_functions=text_functions,
        tools=tools,
        models=models,
        reuse=reuse,
        device_map=device_map,
        max_memory=max_memory,
        tensor_parallel=tensor_parallel,
        start=False,
        commits=commits,
    )
    _fill(system, saved.state)
    fill_adapters(system, saved.manifest.adapters, saved.adapters)
    system.history, system.scores = saved.history, saved.scores
    system.origin = Origin(source=str(source), revision=found.revision)
    return system


def _read(folder: Path, trust_remote_code: bool) -> _SavedTeam:
    manifest, plan = read_manifest(folder, trust_remote_code=trust_remote_code)
    state = read_links(folder, plan)
    check_links(_sketch(plan), state)
    path = part(folder, LINKS)
    if manifest.weights not in (None, file_digest(path)):
        raise WeightsError(
            f"LM503 {path} is not the file that was saved with this team: its SHA-256 differs from "
            "the one in latentmas.json; copy both files again"
        )
    adapters = read_adapters(folder, manifest)
    return _SavedTeam(manifest, plan, state, adapters, read_history(folder), read_scores(folder))


def load_link_weights(system: System, folder: str | Path) -> None:
    """Load a saved team's link weights into a system with the same links, and its adapters.

    Agents of the system get the adapters that the saved team has for them.

    Raises:
        WeightsError: LM502 or LM503; the system's weights are left unchanged.
    """
    folder = Path(folder)

    def read() -> tuple[dict[str, Tensor], Mapping[str, LoRA], dict[str, Tensor]]:
        state = read_links(folder, system.plan)
        if not part(folder, ADAPTERS).is_file():
            return state, {}, {}
        # Trust is safe here: no code of the repositories runs.
        manifest, _ = read_manifest(folder, trust_remote_code=True)
        return state, manifest.adapters, read_adapters(folder, manifest)

    state, adapters, weights = read_steadily(read, folder)
    check_links(system.link_state(), state)
    fill_adapters(system, adapters, weights)
    _fill(system, state)


def read_links(folder: Path, plan: Plan | None = None) -> dict[str, Tensor]:
    """Load all link weights of a saved team.

    Args:
        folder: the team's folder.
        plan: plan whose links the names, types and shapes must match; this is checked before any
            weight is read.

    Raises:
        WeightsError: LM502 when the file does not exist, LM503 when it cannot be read.
    """
    path = part(folder, LINKS)
    if not path.is_file():
        raise WeightsError(f"LM502 {str(folder)!r} is not a saved team: it lacks {LINKS}")
    if not inside(folder, path):
        raise WeightsError(f"LM502 {LINKS} points outside the folder {str(folder)!r}")
    header = read_header(path)
    if plan is not None:
        shapes = {name: tensor.shape for name, tensor in _sketch(plan).items()}
        _refuse(compare_header(header, shapes))
    return load_tensors(path)


def check_links(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, exactly: bool = True
) -> None:
    """Check that weights fit their destination.

    Args:
        wanted: tensors to fill, by name.
        state: tensors that were read, by name.
        exactly: whether `state` must not have other tensors.

    Raises:
        WeightsError: LM503, listing the differences.
    """
    differences = [f"missing: {name}" for name in wanted if name not in state]
    if exactly:
        differences += [f"unexpected: {name}" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        found, shape = state[name], tuple(wanted[name].shape)
        if tuple(found.shape) != shape:
            differences.append(f"{name}: shape {tuple(found.shape)}, not {shape}")
        elif not found.is_floating_point():
            differences.append(f"{name}: type {found.dtype}, not a floating-point type")
        elif not found.isfinite().all():
            differences.append(f"{name}: holds values that are not finite")
    _refuse(differences)


def _refuse(differences: Sequence[str]) -> None:
    if differences:
        shown = "\n  ".join(sorted(differences)[:20])
        count = len(differences)
        noun = "difference" if count == 1 else "differences"
        raise WeightsError(f"LM503 {count} {noun} in link weights:\n  {shown}")


def _sketch(plan: Plan) -> dict[str, Tensor]:
    """Every weight of a plan's links, as tensors without storage."""
    return {
        f"{id}.{name}": tensor
        for id, link in meta_links(plan).items()
        for name, tensor in link.state_dict().items()
    }


@torch.no_grad()
def _fill(system: System, state: Mapping[str, Tensor]) -> None:
    wanted = system.link_state()
    check_links(wanted, state)
    for name, tensor in wanted.items():
        tensor.copy_(state[name])


def _plan_now(
    folder: Path,
    manifest: Manifest,
    saved: Plan,
    swaps: Mapping[str, Swap],
    models: Mapping[str, object],
) -> tuple[Plan, dict[str, str]]:
    """The plan with the current backbones, and the commits to load them at, by key.

    Raises:
        WeightsError: LM501 when a backbone that is not replaced has changed.
    """
    graph, swapped = swap_backbones(saved, swaps)
    kept = {key: b for key, b in saved.backbones.items() if key in graph.backbones.keys() - swapped}
    commits = {key: manifest.commits[key] for key in kept if key in manifest.commits}
    commits |= {
        name: manifest.commits[name] for name in map(adapter_key, kept) if name in manifest.commits
    }
    then = {key: backbone.info for key, backbone in kept.items()}
    now = facts_at({key: backbone.spec for key, backbone in kept.items()}, commits)
    for key, backbone in kept.items():  # models that are handed over may be missing until loading
        if backbone.spec.given:
            now[key] = then[key]
    expected = compile_graph(graph, facts=swapped | then) if swaps else saved
    plan = compile_graph(graph, facts=swapped | now, models=models)
    if plan != expected:
        changes = "\n  ".join(expected.diff(plan))
        raise WeightsError(
            f"LM501 {str(folder)!r}: its backbones have changed since:\n  {changes}\n"
            "pass backbones={agent: …} to use other backbones of equal width deliberately"
        )
    used = {*plan.backbones, *map(adapter_key, plan.backbones)}
    return plan, {key: commit for key, commit in commits.items() if key in used}


def facts_at(
    backbones: Mapping[str, Backbone], commits: Mapping[str, str]
) -> dict[str, BackboneInfo]:
    """Facts about the backbones that have a Hub commit, read at that commit.

    Raises:
        WeightsError: LM501 when one cannot be read.
    """
    found = {}
    for key, spec in backbones.items():
        names = {"revision": key, "adapter_revision": adapter_key(key)}
        pinned = {field: commits[name] for field, name in names.items() if name in commits}
        if pinned:
            found[key] = _info_at(spec, pinned)
    return found


def _info_at(spec: Backbone, pinned: Mapping[str, str]) -> BackboneInfo:
    try:
        return read_info(spec.model_copy(update=dict(pinned)))
    except WeightsError as error:
        commit = " and ".join(commit[:12] for commit in pinned.values())
        raise WeightsError(
            f"LM501 backbone {spec.source!r} cannot be read at commit {commit}, the one "
            f"that the team was saved with: {error}; pass "
            f"backbones={{{spec.source!r}: {spec.source!r}}} to use its current version"
        ) from error

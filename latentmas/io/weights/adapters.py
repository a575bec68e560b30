"""Adapters of agents' own in a saved team: one file of weights, described in the manifest.

The file is never called `adapter_config.json` or `adapter_model.safetensors`: PEFT would take the
team's folder for an adapter of a single model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentmas.backbones import lora_targets
from latentmas.errors import WeightsError
from latentmas.io._format import Manifest, file_digest
from latentmas.io.storage.folder import ADAPTERS, MANIFEST, part
from latentmas.io.weights.tensors import load_tensors, save_tensors
from latentmas.runtime import System
from latentmas.safe_data import inside, read_header
from latentmas.spec import LoRA, canonical_json

__all__ = ["adapters_digest", "check_adapters", "fill_adapters", "read_adapters", "save_adapters"]


def save_adapters(system: System, folder: Path) -> None:
    """Write the adapters of all agents to a folder; nothing where no agent has one."""
    found = system.agent_adapters()
    if found:
        state = {name: t.cpu().contiguous() for name, t in system.adapter_state().items()}
        told = {agent: one.lora.model_dump(mode="json") for agent, one in found.items()}
        header = {"format": "latentmas-adapters", "adapters": canonical_json(told)}
        save_tensors(state, folder / ADAPTERS, header)


def adapters_digest(folder: Path) -> str | None:
    """SHA-256 of the adapters file, or None if the team has no adapters."""
    path = folder / ADAPTERS
    return file_digest(path) if path.is_file() else None


def read_adapters(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Weights of the adapters of a saved team, by `agent.weight`; empty where it has none.

    Raises:
        WeightsError: LM502 when the file does not exist or belongs to no agent, LM503 when it
            cannot be read or is not the one that was saved.
    """
    if not manifest.adapters:
        return {}
    path = part(folder, ADAPTERS)
    if not path.is_file():
        raise WeightsError(f"LM502 {str(folder)!r} is not a complete team: it lacks {ADAPTERS}")
    if not inside(folder, path):
        raise WeightsError(f"LM502 {ADAPTERS} points outside the folder {str(folder)!r}")
    agents = {str(agent.get("name")) for agent in manifest.graph.get("agents", [])}
    for agent in manifest.adapters:
        if agent not in agents:
            raise WeightsError(
                f"LM502 {part(folder, MANIFEST)} has an adapter of {agent!r:.100}, which is not an "
                "agent of the team"
            )
    known = tuple(f"{agent}." for agent in manifest.adapters)
    header = read_header(path)
    stray = [name for name in header.entries if not name.startswith(known)]
    if stray:
        raise WeightsError(f"LM503 {path} holds {stray[0]!r:.200}, which belongs to no adapter")
    if manifest.adapter_weights not in (None, file_digest(path)):
        raise WeightsError(
            f"LM503 {path} is not the file that was saved with this team: its SHA-256 differs from "
            "the one in latentmas.json; copy both files again"
        )
    return load_tensors(path)


def check_adapters(
    system: System, adapters: Mapping[str, LoRA], state: Mapping[str, Tensor]
) -> None:
    """Check that adapters of a saved team fit those of a system, before any weight changes.

    Raises:
        WeightsError: LM503, listing the differences.
    """
    own = system.agent_adapters()
    lines = [f"adapter of {agent}: missing in the saved team" for agent in own.keys() - adapters]
    lines += [
        f"adapter of {agent}: the saved one has {lora}, not {own[agent].lora}"
        for agent, lora in adapters.items()
        if agent in own and own[agent].lora != lora
    ]
    agents = tuple(f"{agent}." for agent in own)
    wanted = {name: tuple(t.shape) for name, t in system.adapter_state().items()}
    for name in wanted.keys() | {name for name in state if name.startswith(agents)}:
        if name not in state or name not in wanted:
            lines.append(f"{'missing' if name in wanted else 'unexpected'}: {name:.200}")
        elif tuple(state[name].shape) != wanted[name]:
            lines.append(f"{name}: shape {tuple(state[name].shape)}, not {wanted[name]}")
        elif not state[name].is_floating_point() or not state[name].isfinite().all():
            lines.append(f"{name}: holds values that are not finite numbers")
    if lines:
        shown = "\n  ".join(sorted(lines)[:20])
        raise WeightsError(
            f"LM503 the adapters of the team do not fit in {len(lines)} places:\n  {shown}"
        )


def _check_size(system: System, agent: str, lora: LoRA, state: Mapping[str, Tensor]) -> None:
    """Check modules and rank before any memory is taken for an adapter."""
    own = {n.removeprefix(f"{agent}."): t for n, t in state.items() if n.startswith(f"{agent}.")}
    found = {name.rpartition(".lora_")[0] for name in own}
    wanted = set(lora_targets(system.backbone_of(agent), lora.target_modules))
    ranks = {t.shape[0] for name, t in own.items() if ".lora_A." in name and t.dim()}
    if found != wanted or ranks != {lora.r}:
        raise WeightsError(
            f"LM503 the adapter of agent {agent!r} does not fit its backbone: it has rank {lora.r} "
            f"over {len(wanted)} layers, and the file holds weights of rank "
            f"{', '.join(map(str, sorted(ranks))) or 'none'} over {len(found)} layers, "
            f"{len(found & wanted)} of which are the same; load the team with the backbones that "
            "it was trained on"
        )


@torch.no_grad()
def fill_adapters(
    system: System, adapters: Mapping[str, LoRA], state: Mapping[str, Tensor]
) -> None:
    """Give a system the adapters of a saved team; those that it has are filled.

    Raises:
        WeightsError: LM503 when they do not fit; no weight has changed.
    """
    for agent, lora in adapters.items():
        if system.adapter_of(agent) is None:
            _check_size(system, agent, lora, state)
            system.add_adapter(agent, lora)
    check_adapters(system, adapters, state)
    for name, tensor in system.adapter_state().items():
        tensor.copy_(state[name])

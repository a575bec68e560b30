"""Reading a team."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentmas.compiler import compile_graph
from latentmas.errors import WeightsError
from latentmas.io._format import LINKS, read_manifest
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import TextFunction
from latentmas.tools import Tool

__all__ = ["load_link_weights", "load_system"]


def load_system(
    folder: str | Path,
    *,
    device: str | Mapping[str, str] = "cpu",
    dtype: str | None = None,
    executor: str = "auto",
    text_functions: Mapping[str, TextFunction] | None = None,
    tools: Mapping[str, Tool] | None = None,
    reuse: System | None = None,
) -> System:
    """Load a saved team; its backbones come from where they are declared.

    Args:
        folder: what `save_system` wrote.
        device: for all agents, or by agent.
        dtype: of the backbones, in place of what they declare.
        executor: name of the default executor.
        text_functions: of text sources.
        tools: in place of registered ones, or beside them.
        reuse: a system whose loaded backbones are taken where they are the same.

    Raises:
        WeightsError: LM501 when a backbone has changed since, LM502 when the folder is no saved
            team, LM503 when weights are missing, unexpected, of a wrong shape or not finite.
        GraphError: a backbone's configuration cannot be read.
    """
    folder = Path(folder)
    _, saved = read_manifest(folder)
    plan = compile_graph(saved.graph)
    if plan != saved:
        changes = "\n  ".join(saved.diff(plan))
        raise WeightsError(f"LM501 {str(folder)!r}: its backbones have changed since:\n  {changes}")
    state = _read_links(folder, plan)
    system = System.load(
        plan,
        device=device,
        dtype=dtype,
        executor=executor,
        text_functions=text_functions,
        tools=tools,
        reuse=reuse,
        start=False,
    )
    _fill(system, state)
    return system


def load_link_weights(system: System, folder: str | Path) -> None:
    """Put a saved team's link weights into a loaded system with the same links.

    Raises:
        WeightsError: LM502 or LM503, and nothing is changed.
    """
    _fill(system, _read_links(Path(folder), system.plan))


def _read_links(folder: Path, plan: Plan) -> dict[str, Tensor]:
    path = folder / LINKS
    if not path.is_file():
        raise WeightsError(f"LM502 {str(folder)!r} is no saved team: it lacks {LINKS}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"LM503 {path} cannot be read: {error}") from error


@torch.no_grad()
def _fill(system: System, state: Mapping[str, Tensor]) -> None:
    wanted = system.link_state()
    differences = [f"missing: {name}" for name in wanted if name not in state]
    differences += [f"unexpected: {name}" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        found, shape = state[name], tuple(wanted[name].shape)
        if tuple(found.shape) != shape:
            differences.append(f"{name}: shape {tuple(found.shape)}, not {shape}")
        elif not found.is_floating_point():
            differences.append(f"{name}: type {found.dtype}, not a floating-point type")
        elif not found.isfinite().all():
            differences.append(f"{name}: holds values that are not finite")
    if differences:
        shown = "\n  ".join(sorted(differences)[:20])
        raise WeightsError(f"LM503 {len(differences)} differences in link weights:\n  {shown}")
    for name, tensor in wanted.items():
        tensor.copy_(state[name])

"""A system in a few lines, as `print(system)` shows it, and digests of its links."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from latentmas.engine import kept_memory

if TYPE_CHECKING:
    from latentmas.backbones import LoadedBackbone
    from latentmas.runtime.system import System

__all__ = ["describe", "link_digests"]


def describe(system: System) -> str:
    """The team's name and depth, a line for each agent, and its links."""
    plan = system.plan
    graph, links = plan.graph, len(plan.links)
    agents = graph.agents
    width = max(len(agent.name) for agent in agents)
    lines = [
        f"System {graph.name!r}: {len(agents)} agent{'s' * (len(agents) != 1)}, "
        f"{graph.rounds} round{'s' * (graph.rounds != 1)}, {links} link{'s' * (links != 1)} of "
        f"{plan.n_parameters:,} weights, executor {system.executor}"
    ]
    for agent in agents:
        backbone = system.backbone_of(agent.name)
        steps = graph.steps_of(agent)
        dtype = str(backbone.dtype).removeprefix("torch.")
        lines.append(
            f"  {agent.name:<{width}}  {backbone.planned.spec.source}{_adapters(backbone)}, "
            f"{dtype} on {backbone.device}, {steps} latent step{'s' * (steps != 1)}"
            + (", answers" if agent.name == plan.output else "")
        )
    return "\n".join([*lines, *_buffers(system)])


def _buffers(system: System) -> list[str]:
    """What the executors with buffers of fixed size keep."""
    backbones = {id(backbone): backbone for backbone in system.agent_backbones.values()}.values()
    held = [kept for backbone in backbones if (kept := kept_memory(backbone)).buffers]
    if not held:
        return []
    count, nbytes, graphs = (sum(numbers) for numbers in zip(*held, strict=True))
    return [f"  kept for runs: {count} buffers of {nbytes / 2**20:.1f} MiB, {graphs} CUDA graphs"]


def _adapters(backbone: LoadedBackbone) -> str:
    declared, learned = backbone.planned.spec.adapter, backbone.learned
    return (f" with adapter {declared}" if declared else "") + " with its own LoRA" * learned


def link_digests(system: System) -> dict[str, str]:
    """SHA-256 (hex) of each link's weights (names, types, shapes and bytes), by id.

    Those of an agent's own adapter are under `adapter.<agent>`.
    """
    links = {id: _digest(system.link(id).state_dict()) for id in system.link_ids()}
    own = system.agent_adapters()
    return links | {f"adapter.{name}": _digest(one.state_dict()) for name, one in own.items()}


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Hash the raw bytes: numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

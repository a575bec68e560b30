"""Which backbones are put on several devices, and what such a team cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from latentmas.arguments import whole
from latentmas.backbones import (
    STRATEGIES,
    LoadedBackbone,
    Split,
    Spread,
    TensorSplit,
    check_tensor_parallel,
    open_mesh,
)
from latentmas.engine import AUTO
from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.plan import DeviceMap, MaxMemory, Plan, RunOptions
from latentmas.runtime.loading.placement import find_device

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["check_movable", "check_same_run", "choose_splits"]

EXECUTORS = (AUTO, "cached", "reference")
"""Executors that run a backbone on several devices."""
_PLACE = (str, int)


def choose_splits(
    plan: Plan,
    *,
    device: str | Mapping[str, str] | None,
    device_map: DeviceMap | None,
    max_memory: MaxMemory | None,
    tensor_parallel: int,
    executor: str,
) -> dict[str, Split]:
    """How each agent's backbone is put on several devices, by agent; those on one are left out.

    Arguments as `System.load`. No weights are loaded.

    Raises:
        LatentMASError: Arguments exclude each other, the executor or the team cannot run so, or
            the job has the wrong number of processes.
        WeightsError: A backbone cannot be split over these processes.
        UnknownNameError: An agent or a strategy is unknown.
    """
    tensor_parallel = whole("tensor_parallel", tensor_parallel)
    if max_memory is not None and device_map is None:
        raise LatentMASError(
            "max_memory limits what device_map may use; add device_map='auto', or leave it out"
        )
    splits: dict[str, Split] = {}
    if tensor_parallel > 1:
        if device_map is not None or device is not None:
            found = "device_map" if device_map is not None else f"device={device!r}"
            raise LatentMASError(
                f"tensor_parallel={tensor_parallel} excludes {found}: each process uses the device "
                "of its own (LOCAL_RANK); leave one of the two out"
            )
        splits = _tensor_splits(plan, tensor_parallel)
    elif device_map is not None:
        splits = dict(_spreads(plan, device, device_map, max_memory))
    if splits and executor not in EXECUTORS:
        reason = next(iter(splits.values())).reason
        raise LatentMASError(
            f"executor {executor!r} does not run a backbone when {reason}; choose "
            f"{', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}"
        )
    return splits


def check_movable(backbones: Mapping[str, LoadedBackbone]) -> None:
    """Check that `system.to` and the like may move backbones.

    Raises:
        LatentMASError: One is on several devices.
    """
    for agent, backbone in backbones.items():
        if backbone.split is not None:
            raise LatentMASError(
                f"the backbone of agent {agent!r} stays as it was loaded: {backbone.split.reason}; "
                "give its type and devices to load: plan.load(dtype=…, device_map=…)"
            )


def check_same_run(
    system: System,
    samples: object,
    options: RunOptions,
    objects: Mapping[str, object],
    *,
    edited: bool,
) -> None:
    """Check that the processes of a tensor-parallel group are about to run the same.

    Raises:
        LatentMASError: Their rows, options or teams differ; it is raised on all of them.
    """
    if system.mesh is not None:
        asked = {**options.model_dump(), **objects, "edited": edited}
        system.mesh.check_same("run", team=system.plan.digest, rows=samples, options=asked)


def _tensor_splits(plan: Plan, size: int) -> dict[str, Split]:
    agents = [agent.name for agent in plan.graph.agents if agent.tools]
    if agents:
        raise LatentMASError(
            f"tensor_parallel={size}: agent {agents[0]!r} has tools, which each of the {size} "
            "processes would call, with results that may differ; use device_map, or agents "
            "without tools"
        )
    for planned in plan.backbones.values():
        check_tensor_parallel(planned, size)
    split = TensorSplit(open_mesh(size))
    return {agent.name: split for agent in plan.graph.agents}


def _spreads(
    plan: Plan,
    device: str | Mapping[str, str] | None,
    device_map: DeviceMap,
    max_memory: MaxMemory | None,
) -> Mapping[str, Spread]:
    names = [agent.name for agent in plan.graph.agents]
    by_agent = _by_agent(names, device_map)
    given = device.keys() if isinstance(device, Mapping) else names if device is not None else ()
    both = sorted(by_agent.keys() & set(given))
    if both:
        raise LatentMASError(
            f"agent {both[0]!r} has both device and device_map; give the agent one of them, or "
            "name the agents: device={agent: …}, device_map={agent: …}"
        )
    for where in by_agent.values():
        _check_map(where)
    for agent in plan.graph.agents:
        spec = plan.backbones[agent.backbone].spec
        if agent.name in by_agent and (spec.given or spec.adapter):
            found = "is handed over as an object" if spec.given else "has an adapter"
            raise LatentMASError(
                f"agent {agent.name!r}: its backbone {spec.source!r} {found}, which device_map "
                "does not place; leave the agent out of device_map, or merge the adapter first"
            )
    return {name: Spread(where, max_memory) for name, where in by_agent.items()}


def _by_agent(names: Sequence[str], given: DeviceMap) -> dict[str, str | Mapping[str, str | int]]:
    """The map of each agent that has one."""
    if isinstance(given, str):
        return dict.fromkeys(names, given)
    if not isinstance(given, Mapping):
        raise LatentMASError(
            f"device_map is a {type(given).__name__}; give one of {', '.join(STRATEGIES)}, or a "
            "mapping"
        )
    agents = [name for name in given if name in names]
    others = [name for name in given if name not in names]
    named = all(isinstance(w, Mapping) or w in STRATEGIES for w in given.values())
    if others and (agents or named):
        raise UnknownNameError("agent", others[0], names)
    if agents:
        return {name: given[name] for name in agents}  # type: ignore[misc]
    return dict.fromkeys(names, given)  # type: ignore[arg-type]


def _check_map(where: object) -> None:
    """Check the strategy, or the devices of a module map.

    Raises:
        LatentMASError: A device is not available.
        UnknownNameError: The strategy is unknown.
    """
    if isinstance(where, str):
        if where not in STRATEGIES:
            raise UnknownNameError("device_map", where, STRATEGIES)
        return
    if not isinstance(where, Mapping) or not all(isinstance(p, _PLACE) for p in where.values()):
        raise LatentMASError(
            f"device_map {where!r:.200} is neither one of {', '.join(STRATEGIES)} nor a mapping of "
            'module names to devices, such as {"model.layers.0": "cuda:0", "": "cpu"}'
        )
    for place in {str(p): p for p in where.values()}.values():
        if place != "disk":
            find_device(f"cuda:{place}" if isinstance(place, int) else place)

"""Where agents run, and which loaded backbones serve them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from latentmas.backbones import LoadedBackbone, load_backbone
from latentmas.errors import LatentMASError, UnknownNameError, closest
from latentmas.plan import Plan
from latentmas.spec import DType, Graph, full_dtype

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = [
    "check_dtype",
    "check_plan",
    "check_system",
    "link_key",
    "load_backbones",
    "place_agents",
    "place_links",
]


def check_plan(plan: object) -> None:
    """Whether it is a plan.

    Raises:
        TypeError: it is something else; a graph is told to be compiled.
    """
    if not isinstance(plan, Plan):
        found = type(plan).__name__
        how = "; compile it first: graph.compile().load()" if isinstance(plan, Graph) else ""
        raise TypeError(f"System.load takes a Plan, and was given a {found}{how}")


def check_system(name: str, system: System) -> System:
    """The system itself.

    Raises:
        TypeError: it is something else.
    """
    from latentmas.runtime.system import System

    if not isinstance(system, System):
        found = type(system).__name__
        raise TypeError(f"{name} is a {found}; give a loaded System, as plan.load() makes it")
    return system


def place_agents(plan: Plan, device: str | Mapping[str, str]) -> dict[str, str]:
    """The device of each agent.

    Raises:
        LatentMASError: a device is not there, or an agent named does not exist.
    """
    names = [agent.name for agent in plan.graph.agents]
    if isinstance(device, Mapping):
        for name in device:
            if name not in names:
                guess = closest(name, names)
                hint = f"did you mean {guess!r}?" if guess else f"there are: {', '.join(names)}"
                raise LatentMASError(f"device is given for {name!r}, which is not an agent; {hint}")
    placed = {
        n: str(device.get(n, "cpu") if isinstance(device, Mapping) else device) for n in names
    }
    for name in sorted(set(placed.values())):
        _check(name)
    return placed


def _check(name: str) -> None:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise LatentMASError("device 'meta' keeps no values; use device='cpu', or a GPU")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        found = f"{count} CUDA device{'s' if count != 1 else ''}"
        raise LatentMASError(
            f"device {name!r} is not available ({found}); use device='cpu'"
        ) from error


def check_dtype(dtype: str | torch.dtype | None) -> str | None:
    """The full name of a type that backbones can have; `"bf16"` and the like will do.

    Raises:
        UnknownNameError: there is no such type.
    """
    full, known = full_dtype(dtype), get_args(DType)
    if full is not None and full not in known:
        raise UnknownNameError("dtype", full, known)
    return None if full is None else str(full)


def load_backbones(
    plan: Plan,
    placed: Mapping[str, str],
    *,
    dtype: str | None = None,
    reuse: Mapping[str, LoadedBackbone] | None = None,
    commits: Mapping[str, str] | None = None,
) -> dict[str, LoadedBackbone]:
    """The backbone of each agent; one is loaded once for each device it is needed on.

    Args:
        plan: whose agents.
        placed: agent → device.
        dtype: in place of what the backbones declare.
        reuse: loaded backbones of another system, by agent, to take where they are the same.
        commits: of the hub, by key, in place of the revisions declared.
    """
    at_hand = {
        (old.planned.spec.fingerprint, str(old.device)): old
        for old in (reuse or {}).values()
        if dtype is None or str(old.dtype) == f"torch.{dtype}"
    }
    serving = {}
    for key, planned in plan.backbones.items():
        commit = (commits or {}).get(key)
        for agent in planned.agents:
            where = str(torch.empty(0, device=placed[agent]).device)
            known = at_hand.get((planned.spec.fingerprint, where))
            if known is None or commit not in (None, known.commit):
                known = load_backbone(planned, device=where, dtype=dtype, commit=commit)
                at_hand[planned.spec.fingerprint, where] = known
            serving[agent] = known
    return serving


def link_key(id: str) -> str:
    """A link id as a key of `nn.ModuleDict`, which refuses dots; names cannot hold a slash."""
    return id.replace(".", "/")


def place_links(plan: Plan, links: nn.ModuleDict, serving: Mapping[str, LoadedBackbone]) -> None:
    """Put each link where its first user's backbone is."""
    for planned in plan.links:
        agent = planned.users[0].split("->")[0]
        links[link_key(planned.id)].to(serving[agent].device)

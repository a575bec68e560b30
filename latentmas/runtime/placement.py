"""Where agents run, and which loaded backbones serve them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from latentmas.backbones import LoadedBackbone, load_backbone
from latentmas.errors import LatentMASError, closest
from latentmas.plan import Plan

__all__ = ["load_backbones", "place_agents"]


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
                raise LatentMASError(f"device is given for {name!r}, which is no agent; {hint}")
    placed = {
        n: str(device.get(n, "cpu") if isinstance(device, Mapping) else device) for n in names
    }
    for name in sorted(set(placed.values())):
        _check(name)
    return placed


def _check(name: str) -> None:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        found = f"{count} CUDA device{'s' if count != 1 else ''}"
        raise LatentMASError(
            f"device {name!r} is not available ({found}); use device='cpu'"
        ) from error


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

"""One backbone over several devices of one process: layers by device, moved by accelerate."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["STRATEGIES", "Spread", "execution_device", "is_spread"]

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` with which accelerate chooses the devices."""


@dataclass(frozen=True)
class Spread:
    """Where the layers of a backbone are."""

    device_map: str | Mapping[str, str | int]
    """A strategy, or the device of each module by name: `"cuda:0"`, `0`, `"cpu"` or `"disk"`."""
    max_memory: Mapping[str | int, str | int] | None = None
    """Memory that a strategy may use, by device: `{0: "20GiB", "cpu": "64GiB"}`."""

    @property
    def key(self) -> str:
        """Text that is equal for equal placements."""
        parts = self.device_map, sorted(map(str, (self.max_memory or {}).items()))
        return "device_map " + json.dumps(parts, sort_keys=True)

    @property
    def reason(self) -> str:
        """Why fixed buffers and moving backbones do not work."""
        return "its layers are on several devices (device_map)"

    def load(self, auto: Any, source: str, **options: Any) -> Any:
        """Load with `auto.from_pretrained`; weights on disk are copied to a temporary folder."""
        folder = tempfile.mkdtemp(prefix="latentmas-offload-")
        where = self.device_map if isinstance(self.device_map, str) else dict(self.device_map)
        memory = None if self.max_memory is None else dict(self.max_memory)
        try:
            loaded = auto.from_pretrained(
                source, device_map=where, max_memory=memory, offload_folder=folder, **options
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(loaded[0], shutil.rmtree, folder, ignore_errors=True)
        return loaded


def execution_device(module: nn.Module) -> torch.device:
    """The device where a module with a weight computes; an offloaded weight is not there yet."""
    hook: Any = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device(device)
    weight: Any = module.weight
    return torch.device(weight.device)


def is_spread(model: nn.Module) -> bool:
    """Whether a loaded model is on several devices, or partly on disk."""
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    return len(places) > 1 or "disk" in places

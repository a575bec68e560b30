"""Types of the arguments that put one backbone on several devices."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DeviceMap", "MaxMemory"]

ModuleMap = str | Mapping[str, str | int]
"""A strategy such as `"auto"`, or the device of each module by name."""
DeviceMap = ModuleMap | Mapping[str, ModuleMap]
"""A module map for all agents, or by agent."""
MaxMemory = Mapping[str | int, str | int]
"""Memory by device: `{0: "20GiB", "cpu": "64GiB"}`."""

"""Which executor a system runs on when none is named, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["AUTO", "Choice", "choose_executor"]

AUTO = "auto"
"""Stands for the fastest executor that applies."""


class Choice(NamedTuple):
    """An executor, and why it was chosen."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_executor(system: System) -> Choice:
    """`cuda_graph` where every backbone can run on it, else `cached`."""
    for agent, backbone in system.serving.items():
        who = f"agent {agent!r}, backbone {backbone.planned.spec.source!r}"
        if backbone.device.type != "cuda":
            return Choice("cached", f"cuda_graph needs CUDA; {who} is on {backbone.device.type}")
        if backbone.static_reason is not None:
            return Choice("cached", f"no cuda_graph for {who}: {backbone.static_reason}")
    return Choice("cuda_graph", "every backbone is on a CUDA device and runs on fixed buffers")

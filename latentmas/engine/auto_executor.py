"""Which executor a system runs on when none is named, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.plan import PositionMode

__all__ = [
    "AUTO",
    "Choice",
    "choose_executor",
    "choose_refill_threshold",
    "known_executor",
    "make_executor",
]

AUTO = "auto"
"""Stands for the fastest executor that applies."""


class Choice(NamedTuple):
    """An executor, and why it was chosen."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def known_executor(name: str) -> str:
    """The name itself.

    Raises:
        UnknownNameError: no executor has it.
    """
    if name != AUTO:
        executors.get(name)
    return name


def choose_executor(backbones: Mapping[str, LoadedBackbone]) -> Choice:
    """`cuda_graph` where every backbone can run on it, else `cached`.

    Args:
        backbones: The loaded backbone of each agent.
    """
    for agent, backbone in backbones.items():
        who = f"agent {agent!r}, backbone {backbone.planned.spec.source!r}"
        if backbone.device.type != "cuda":
            return Choice("cached", f"cuda_graph needs CUDA; {who} is on {backbone.device.type}")
        if backbone.static_reason is not None:
            return Choice("cached", f"no cuda_graph for {who}: {backbone.static_reason}")
    return Choice("cuda_graph", "every backbone is on a CUDA device and runs on fixed buffers")


def make_executor(
    name: str, backbones: Mapping[str, LoadedBackbone], mode: PositionMode = "mask"
) -> Executor:
    """The executor of that name; `"auto"` is resolved for these backbones."""
    known_executor(name)
    return executors.get(choose_executor(backbones).name if name == AUTO else name)(mode)


def choose_refill_threshold(backbone: LoadedBackbone) -> float:
    """The share of a batch that must have ended before further samples join.

    On CUDA a step costs the same for fewer rows, so waiting for half of them pays.
    """
    return 0.5 if backbone.device.type == "cuda" else 1.0

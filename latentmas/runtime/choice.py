"""Which executor a system runs on when none is named, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from latentmas.plan import PositionMode
from latentmas.runtime.executors import executors
from latentmas.runtime.executors._base import Executor

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = [
    "AUTO",
    "Choice",
    "choose_executor",
    "choose_refill",
    "executor_name",
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


def choose_executor(system: System) -> Choice:
    """`cuda_graph` where every backbone can run on it, else `cached`."""
    for agent, backbone in system.serving.items():
        who = f"agent {agent!r}, backbone {backbone.planned.spec.source!r}"
        if backbone.device.type != "cuda":
            return Choice("cached", f"cuda_graph needs CUDA; {who} is on {backbone.device.type}")
        if backbone.static_reason is not None:
            return Choice("cached", f"no cuda_graph for {who}: {backbone.static_reason}")
    return Choice("cuda_graph", "every backbone is on a CUDA device and runs on fixed buffers")


def executor_name(system: System, wanted: str | Executor | None) -> str | Executor:
    """The name of an executor, or one of the caller's own making; None takes the system's."""
    if isinstance(wanted, Executor):
        return wanted
    name = known_executor(wanted or system.executor)
    return choose_executor(system).name if name == AUTO else name


def make_executor(system: System, wanted: str | Executor | None, mode: PositionMode) -> Executor:
    """The executor of a run; arguments as `System.run`."""
    name = executor_name(system, wanted)
    return name if isinstance(name, Executor) else executors.get(name)(mode)


def choose_refill(system: System) -> float:
    """The share of answers that must have ended before further samples join in."""
    return 0.5 if system.backbone_of(system.plan.output).device.type == "cuda" else 1.0

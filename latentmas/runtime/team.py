"""`Team`: what the steps of a plan need of whoever runs them."""

from __future__ import annotations

from typing import Protocol

from latentmas.backbones import LoadedBackbone
from latentmas.links import Link
from latentmas.spec import TextFunction
from latentmas.tools import Tool

__all__ = ["Team"]


class Team(Protocol):
    """Backbones, links and functions; a `System` is one, and so are the cost model's stand-ins."""

    text_functions: dict[str, TextFunction]
    """Of text sources without a constant, by name."""
    tools: dict[str, Tool]
    """By name."""

    def backbone_of(self, agent: str) -> LoadedBackbone:
        """The backbone that serves an agent; agents that share one are given the same object."""
        ...

    def link(self, id: str) -> Link:
        """The link of that id."""
        ...

"""The oracle: plain, uncached, obviously right."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.sessions import Feed, RecomputedFeed

__all__ = ["Reference"]


@executors.register("reference")
class Reference(Executor):
    """Runs the whole sequence again for each step, as the published code does; differentiable."""

    name = "reference"
    groups = False
    keeps = None

    def feed(self, backbone: LoadedBackbone) -> Feed:
        """A feed that recomputes."""
        return RecomputedFeed(backbone, self.position_mode)

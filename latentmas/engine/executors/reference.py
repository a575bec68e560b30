"""The oracle: plain, uncached, obviously right."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.recomputed import RecomputedSession

__all__ = ["Reference"]


@executors.register("reference")
class Reference(Executor):
    """Runs the whole sequence again for each step, as the published code does; differentiable."""

    name = "reference"
    groups = False
    keeps = None

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed that recomputes."""
        return RecomputedSession(backbone, self.position_mode)

"""The oracle: plain, uncached, obviously right."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.recomputed import RecomputedSession
from latentmas.engine.sessions import DecoderSession

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

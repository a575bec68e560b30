"""The default: every position is computed once."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.cached import CachedSession

__all__ = ["Cached"]


@executors.register("cached")
class Cached(Executor):
    """Keeps keys and values of a turn, and of prompts' beginnings over turns; differentiable."""

    name = "cached"
    reuses = True

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed with a cache."""
        return CachedSession(backbone, self.position_mode)

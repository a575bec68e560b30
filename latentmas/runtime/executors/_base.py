"""What every executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.runtime.feeds import Feed, PositionMode
from latentmas.runtime.inner import Inner
from latentmas.runtime.packing import Packed
from latentmas.runtime.rollout import latent_rollout

__all__ = ["Executor"]


class Executor(ABC):
    """Interface: how a backbone is fed. Results must equal the `reference` executor's."""

    groups = True
    """Whether agents that roll at the same time on one backbone run as one batch."""
    reuses = False
    """Whether feeds take a prompt's prefix from an earlier turn."""

    def __init__(self, position_mode: PositionMode = "mask") -> None:
        self.position_mode: PositionMode = position_mode

    @abstractmethod
    def feed(self, backbone: LoadedBackbone) -> Feed:
        """A fresh feed of the backbone."""

    def rollout(
        self, backbone: LoadedBackbone, inner: Inner, prompt: Packed, latent_steps: int
    ) -> Tensor:
        """K latent steps; the raw states h_BKD."""
        return latent_rollout(self.feed(backbone), inner, prompt, latent_steps)

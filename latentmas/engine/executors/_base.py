"""What every executor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

from torch import Tensor, nn

from latentmas.backbones import LoadedBackbone
from latentmas.engine.inner import Inner
from latentmas.engine.packing import Packed
from latentmas.engine.rollout import latent_rollout
from latentmas.engine.sessions._base import DecoderSession, check_position_mode
from latentmas.engine.warm_up import ExpectedSteps, WarmUp
from latentmas.plan import PositionMode

__all__ = ["Executor"]


class Executor(ABC):
    """Interface: how a backbone is fed. Results must equal the `reference` executor's."""

    name: str = ""
    """Under which it is registered."""
    groups = True
    """Whether agents that roll at the same time on one backbone run as one batch."""
    learns = True
    """Whether gradients pass through its rollouts."""
    reuses = False
    """Whether feeds take a prompt's prefix from an earlier turn."""
    keeps: ClassVar[Literal["growing", "fixed"] | None] = "growing"
    """How a turn's state is kept, for estimates of memory: it grows, or lies in buffers of fixed
    size that later turns use again. None: nothing is kept, and no estimate is made."""
    captures: ClassVar[bool] = False
    """Whether steps are captured as CUDA graphs, for which more buffers are kept."""
    swaps: ClassVar[bool] = False
    """Whether backbones come to the device for their turns, so that not all are there at once."""
    copies: ClassVar[bool] = False
    """Whether it holds a second copy of the decoders' weights."""

    def __init__(self, position_mode: PositionMode = "mask") -> None:
        self.position_mode: PositionMode = check_position_mode(position_mode)

    @abstractmethod
    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A fresh feed of the backbone."""

    @contextmanager
    def running(self, links: nn.ModuleDict) -> Iterator[None]:
        """Around a run that applies these links."""
        yield

    def prepare(self, backbone: LoadedBackbone) -> None:  # noqa: B027
        """Called before a turn of an agent on this backbone."""

    def warm_up(self, expected: Sequence[ExpectedSteps]) -> WarmUp:
        """Prepare for steps that runs will take; by default nothing has to be prepared.

        Args:
            expected: Steps of all turns of a run.
        """
        return WarmUp(self.name, reason=f"executor {self.name!r} captures no graphs")

    def rollout(
        self, backbone: LoadedBackbone, inner: Inner, prompt: Packed, latent_steps: int
    ) -> Tensor:
        """K latent steps; the raw states h_BKD."""
        return latent_rollout(self.session(backbone), inner, prompt, latent_steps)

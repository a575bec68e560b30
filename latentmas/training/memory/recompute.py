"""Memory for time: a rollout's activations are computed again in the backward pass.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentmas.backbones import LoadedBackbone
from latentmas.engine import DecoderSession, Executor, Inner, Packed, beginnings_kept

__all__ = ["CheckpointedExecutor"]


class CheckpointedExecutor(Executor):
    """Wraps an executor so that each rollout keeps only its input and runs again for gradients.

    Gradients are exact: the cache is built again inside, and nothing in it is written in place.
    """

    def __init__(self, plain: Executor) -> None:
        super().__init__(plain.position_mode)
        self.plain = plain

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """The wrapped executor's."""
        return self.plain.session(backbone)

    def rollout(
        self, backbone: LoadedBackbone, inner: Inner, prompt: Packed, latent_steps: int
    ) -> Tensor:
        """K latent steps; the raw states h_BKD."""

        def again(x_BTD: Tensor) -> Tensor:
            # The backward pass runs outside of the loss, on CUDA in another thread: without this,
            # the prompt would be read in other pieces than in the forward pass.
            with beginnings_kept():
                fed = prompt._replace(x_BTD=x_BTD)
                return self.plain.rollout(backbone, inner, fed, latent_steps)

        states: Tensor = checkpoint(
            again, prompt.x_BTD, use_reentrant=False, preserve_rng_state=False
        )
        return states

"""The latent rollout, once: cached or recomputed, with or without gradients.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from latentmas.engine.inner import Inner, learns
from latentmas.engine.packing import Packed
from latentmas.engine.sessions._base import DecoderSession

__all__ = ["latent_rollout"]


def latent_rollout(feed: DecoderSession, inner: Inner, prompt: Packed, latent_steps: int) -> Tensor:
    """K autoregressive latent steps after a prompt (RecursiveMAS, arXiv 2604.25917).

    Where no link that learns takes part, no graph for gradients is built.

    h_1 is the state at the last prompt position; h_{k+1} is the state after feeding inner(h_k).

    Returns:
        h_BKD, the raw states (before the inner link), differentiable in prompt and link.
    """
    if latent_steps == 0:
        return prompt.x_BTD[:, :0]
    varies = prompt.x_BTD.requires_grad or learns(inner) or feed.backbone.learns
    try:
        with nullcontext() if varies else torch.no_grad():
            feed.reserve(latent_steps - 1)
            first = feed.prefill(prompt)
            return torch.stack([first, *feed.roll(inner, first, latent_steps - 1)], dim=1)
    finally:
        feed.close()

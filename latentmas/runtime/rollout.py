"""The latent rollout, once: cached or recomputed, with or without gradients.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `D` width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Protocol

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone, State
from latentmas.runtime.packing import Packed

__all__ = [
    "CachedFeed",
    "Feed",
    "Inner",
    "PositionMode",
    "RecomputedFeed",
    "latent_rollout",
    "positions",
]


class Inner(Protocol):
    """An inner link, or those of several agents."""

    def apply_to(self, h_BD: Tensor) -> Tensor:
        """States to input embeddings, row by row."""
        ...


PositionMode = Literal["mask", "column"]
"""`mask`: padding has no position. `column`: padding counts, as in the published code."""


def positions(mask_BL: Tensor, mode: PositionMode) -> Tensor:
    """Position ids of every column."""
    if mode == "column":
        return torch.arange(mask_BL.shape[1], device=mask_BL.device).expand_as(mask_BL)
    return (mask_BL.cumsum(dim=1) - 1).clamp_min(0)


class Feed(ABC):
    """Feeds input embeddings to a backbone piece by piece and hands out the last state."""

    splits = False
    """Whether a prompt may be fed in two parts: what a feed remembers costs it nothing."""

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        self.backbone, self.mode = backbone, mode
        self._mask: Tensor | None = None

    @abstractmethod
    def feed(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Append positions; returns the state at the last of them, h_BD."""

    @abstractmethod
    def expand(self, times: int) -> None:
        """Repeat each row, one after the other, with all that it has been fed."""

    def feed_prompt(self, prompt: Packed) -> Tensor:
        """Append a prompt; the state at its last position, h_BD.

        Its fixed columns are read without gradients: nothing that could learn stands in them.
        """
        cut = prompt.fixed if torch.is_grad_enabled() and self.splits else 0
        if cut:
            with torch.no_grad():
                self.feed(prompt.x_BTD[:, :cut].detach(), prompt.mask_BT[:, :cut])
        return self.feed(prompt.x_BTD[:, cut:], prompt.mask_BT[:, cut:])

    def feed_one(self, x_BD: Tensor) -> Tensor:
        """Append one position to every row; returns its state, h_BD."""
        x_B1D = x_BD[:, None]
        return self.feed(x_B1D, torch.ones_like(x_B1D[..., 0], dtype=torch.long))

    def _extend(self, mask_BT: Tensor) -> Tensor:
        self._mask = mask_BT if self._mask is None else torch.cat([self._mask, mask_BT], dim=1)
        return self._mask


class CachedFeed(Feed):
    """Each position is computed once; keys and values are kept, gradients and all."""

    splits = True

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        super().__init__(backbone, mode)
        self._state = State(backbone)

    def feed(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Run the new positions against the cache."""
        mask_BL = self._extend(mask_BT)
        new = positions(mask_BL, self.mode)[:, -x_BTD.shape[1] :]
        return self.backbone.step(x_BTD, new, mask_BL, self._state)[:, -1]

    def feed_prompt(self, prompt: Packed) -> Tensor:
        """Append a prompt; a prefix that was read before is taken from its snapshot."""
        prefix = prompt.prefix
        if prefix is None or torch.is_grad_enabled() or not prefix.begins(prompt.ids_BT):
            return super().feed_prompt(prompt)
        cut = prefix.columns
        if prefix.snapshot is None:
            self.feed(prompt.x_BTD[:, :cut], prompt.mask_BT[:, :cut])
            prefix.snapshot = self._state.snapshot()
        else:
            self._state.restore(prefix.snapshot)
            self._mask = prompt.mask_BT[:, :cut]
        return self.feed(prompt.x_BTD[:, cut:], prompt.mask_BT[:, cut:])

    def expand(self, times: int) -> None:
        """Repeat the rows of mask and cache."""
        assert self._mask is not None, "nothing was fed yet"
        self._mask = self._mask.repeat_interleave(times, dim=0)
        self._state.expand(times)


class RecomputedFeed(Feed):
    """The oracle: every call runs the whole sequence again, and keeps nothing but its input."""

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        super().__init__(backbone, mode)
        self._x: Tensor | None = None

    def feed(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Run all positions from the first."""
        mask_BL = self._extend(mask_BT)
        x_BTD = x_BTD.to(self.backbone.dtype)
        self._x = x_BTD if self._x is None else torch.cat([self._x, x_BTD], dim=1)
        return self.backbone.step(self._x, positions(mask_BL, self.mode), mask_BL)[:, -1]

    def expand(self, times: int) -> None:
        """Repeat the rows of mask and input."""
        assert self._mask is not None, "nothing was fed yet"
        assert self._x is not None
        self._mask = self._mask.repeat_interleave(times, dim=0)
        self._x = self._x.repeat_interleave(times, dim=0)


def latent_rollout(feed: Feed, inner: Inner, prompt: Packed, latent_steps: int) -> Tensor:
    """K autoregressive latent steps after a prompt (RecursiveMAS, arXiv 2604.25917).

    h_1 is the state at the last prompt position; h_{k+1} is the state after feeding inner(h_k).

    Returns:
        h_BKD, the raw states (before the inner link), differentiable in prompt and link.
    """
    if latent_steps == 0:
        return prompt.x_BTD[:, :0]
    states = [feed.feed_prompt(prompt)]
    while len(states) < latent_steps:
        states.append(feed.feed_one(inner.apply_to(states[-1])))
    return torch.stack(states, dim=1)

"""Parallel passes: an agent's latent steps, all positions at once instead of one after another.

Pass 0 is teacher-forced. Pass p feeds `inner(h)` of pass p - 1 at every position at once, in one
forward pass. The first state follows from the prompt alone, and each pass makes one more state
exact: after K - 1 passes all K states are those of the sequential rollout.

Shapes: `B` batch, `T` prompt positions, `K` latent steps, `J = K - 1` positions that are fed after
the prompt, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from latentmas.backbones import KVCache, LoadedBackbone
from latentmas.engine import Inner, Packed, positions

__all__ = ["Boundary", "PassReader", "parallel_passes"]

Boundary = Callable[[int, Tensor], Tensor]
"""Takes the number of a pass, from 1, and x_BJD, which it is to feed; returns what it feeds."""


class PassReader:
    """Reads a batch of prompts once, and then what follows them as often as asked."""

    def __init__(self, backbone: LoadedBackbone, prompt: Packed, real_BK: Tensor) -> None:
        """Read the prompts, without gradients: nothing that learns stands in them.

        Args:
            backbone: reads.
            prompt: B prompts, padded on the left.
            real_BK: which of the K steps a row takes.
        """
        self._backbone = backbone
        self._mask_BL = torch.cat([prompt.mask_BT, real_BK[:, :-1].long()], dim=1)
        places_BL = positions(self._mask_BL, "mask")
        read = prompt.x_BTD.shape[1]
        self._places_BJ = places_BL[:, read:].clone()
        state = KVCache(backbone)
        with torch.no_grad():
            h_BTD = backbone.step(prompt.x_BTD, places_BL[:, :read], prompt.mask_BT, state)
        self._first_B1D = h_BTD[:, -1:].clone()  # a view would keep the states of whole prompts
        # The cache goes into no graph: each pass appends to copies that share these tensors.
        self._snapshot = state.snapshot()

    def read(self, x_BJD: Tensor) -> Tensor:
        """The state after the prompt, and after each of the positions fed, h_BKD.

        Args:
            x_BJD: input embeddings that follow the prompt; gradients flow into them.
        """
        if not x_BJD.shape[1]:
            return self._first_B1D
        state = KVCache(self._backbone)
        state.restore(self._snapshot)
        h_BJD = self._backbone.step(x_BJD, self._places_BJ, self._mask_BL, state)
        return torch.cat([self._first_B1D, h_BJD], dim=1)

    @torch.no_grad()
    def roll(self, inner: Inner) -> Tensor:
        """The states of the sequential rollout, h_BKD, without gradients.

        Args:
            inner: makes each state the next input.
        """
        state = KVCache(self._backbone)
        state.restore(self._snapshot)
        states = [self._first_B1D]
        read = self._mask_BL.shape[1] - self._places_BJ.shape[1]
        for k in range(self._places_BJ.shape[1]):
            mask_BL = self._mask_BL[:, : read + k + 1]
            x_B1D = inner.apply_to(states[-1])
            states.append(self._backbone.step(x_B1D, self._places_BJ[:, k : k + 1], mask_BL, state))
        return torch.cat(states, dim=1)

    def held(self) -> list[Tensor]:
        """All tensors that this reader keeps; none is a view of a larger one."""
        own = [self._mask_BL, self._places_BJ, self._first_B1D]
        return [*own, *_tensors(self._snapshot)]


def parallel_passes(
    reader: PassReader, inner: Inner, gold_BJD: Tensor, count: int, boundary: Boundary
) -> Iterator[tuple[Tensor, Tensor]]:
    """The teacher-forced pass, and then `count` passes over the agent's own outputs.

    Args:
        reader: Reader of the agent's prompts.
        inner: Inner link of the agent.
        gold_BJD: input embeddings of the first K - 1 tokens of its text.
        count: passes after the teacher-forced one; K - 1 reach the sequential rollout.
        boundary: what happens to inner(h) between two passes.

    Yields:
        h_BKD and inner(h_BKD) of each pass.
    """
    fed_BJD = gold_BJD
    for number in range(count + 1):
        h_BKD = reader.read(fed_BJD)
        x_BKD = inner.apply_to(h_BKD)
        yield h_BKD, x_BKD
        if number < count:
            fed_BJD = boundary(number + 1, x_BKD[:, :-1])


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for part in parts for t in _tensors(part)] if isinstance(value, dict | list) else []

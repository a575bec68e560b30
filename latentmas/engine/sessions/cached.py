"""A feed with a growing cache.

Shapes: `B` batch, `T` new positions, `L` columns so far, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentmas.backbones import KVCache, LoadedBackbone, RowSelection
from latentmas.engine.packing import Packed
from latentmas.engine.reuse.beginnings import state_after
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.prompts import PromptSession
from latentmas.plan import PositionMode

__all__ = ["CachedSession"]

PIECE = 16_384
"""Positions of all rows that a backbone reads in one call at most, to bound what it holds."""


class CachedSession(PromptSession):
    """Each position is computed once; keys and values are kept, gradients and all."""

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        super().__init__(backbone, mode)
        self._state = KVCache(backbone)

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Run the new positions against the cache, many in several calls."""
        rows, new = x_BTD.shape[:2]
        size = max(1, PIECE // rows)
        if new > size and self._takes_pieces() and not torch.is_grad_enabled():
            mask_BT = x_BTD.new_ones(rows, new, dtype=torch.long) if mask_BT is None else mask_BT
            pieces = zip(x_BTD.split(size, dim=1), mask_BT.split(size, dim=1), strict=True)
            return [self._feed_piece(*piece) for piece in pieces][-1]
        return self._feed_piece(x_BTD, mask_BT)

    def _feed_piece(self, x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        places_BT = self._extend(x_BTD, mask_BT)
        assert self.mask_BL is not None
        mask_BL, state = self.mask_BL, self._state
        given = x_BTD, places_BT, mask_BL, state
        return self.backbone.step(*given, padded=self.padded, last=True)[:, 0]

    @property
    def _memory(self) -> KVCache:
        return self._state

    def _start(self, prompt: Packed) -> KVCache:
        self._state.reserve(prompt.x_BTD.shape[1] + self._more)
        return self._state

    def _start_after(self, prompt: Packed, ids: tuple[int, ...]) -> None:
        rows, length = prompt.x_BTD.shape[:2]
        self._state = state_after(self.backbone, ids, rows)
        self._state.reserve(length + self._more)

    def select(self, rows: Sequence[int]) -> None:
        """Choose rows of mask and cache."""
        self._select_columns(rows)
        self._state = self._state.assemble([RowSelection(self._state, rows)])
        self._drop_padding()

    def can_merge(self) -> bool:
        """Whether the cache's layers are of known kinds."""
        return self._state.can_merge()

    def join(self, other: DecoderSession) -> None:
        """Put both caches together."""
        assert isinstance(other, CachedSession)
        assert self.mask_BL is not None
        assert other.mask_BL is not None
        parts = [
            RowSelection(feed._state, range(feed.mask_BL.shape[0]))
            for feed in (self, other)
            if feed.mask_BL is not None
        ]
        self._state = self._state.assemble(parts)
        self._join_columns(other)
        self._drop_padding()

    def _drop_padding(self) -> None:
        """Forget the columns on the left that are padding in every row.

        Rows that leave leave their columns behind: without this, a batch that others keep joining
        would grow for as long as it is never empty.
        """
        assert self.mask_BL is not None
        cut = int(self.mask_BL.any(dim=0).long().argmax())
        if cut and self._state.can_merge():
            self.mask_BL = self.mask_BL[:, cut:]
            self._state.keep_last(self.mask_BL.shape[1])

"""The oracle: everything that a backbone has seen is read again each time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone
from latentmas.engine.sessions._base import DecoderSession
from latentmas.plan import PositionMode

__all__ = ["RecomputedSession"]


class RecomputedSession(DecoderSession):
    """Every call runs the whole sequence again, and keeps nothing but its input."""

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        super().__init__(backbone, mode)
        self._x: Tensor | None = None
        self._places: Tensor | None = None

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Run all positions from the first."""
        places = self._extend(x_BTD, mask_BT)
        x_BTD = x_BTD.to(self.backbone.dtype)
        self._x = x_BTD if self._x is None else torch.cat([self._x, x_BTD], dim=1)
        self._places = places if self._places is None else torch.cat([self._places, places], dim=1)
        assert self.mask_BL is not None
        return self.backbone.step(self._x, self._places, self.mask_BL)[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Choose rows of mask and input."""
        index = self._select_columns(rows)
        assert self._x is not None
        assert self._places is not None
        self._x, self._places = self._x[index], self._places[index]

    def join(self, other: DecoderSession) -> None:
        """Put both inputs together."""
        assert isinstance(other, RecomputedSession)
        assert self._x is not None
        assert other._x is not None
        assert self._places is not None
        assert other._places is not None
        more, others = self._join_columns(other)
        self._x = torch.cat([F.pad(self._x, (0, 0, more, 0)), F.pad(other._x, (0, 0, others, 0))])
        self._places = torch.cat(
            [F.pad(self._places, (more, 0)), F.pad(other._places, (others, 0))]
        )

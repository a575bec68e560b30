"""A feed that reads prompts with torch and takes single steps in OpenVINO.

Shapes: `B` batch, `T` new positions, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone, OpenVINORows, OpenVINOStep
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.cached import CachedSession
from latentmas.plan import PositionMode

__all__ = ["OpenVINOSession"]


class OpenVINOSession(CachedSession):
    """Keys and values are in torch's cache, or with OpenVINO once a single step was taken.

    What needs them in torch (several positions at once, another feed that joins) brings them back.
    """

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode, step: OpenVINOStep) -> None:
        super().__init__(backbone, mode)
        self._step = step
        self._away: OpenVINORows | None = None
        """The rows, while their keys and values are with OpenVINO."""

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Append positions: single ones in OpenVINO, others and those with gradients in torch."""
        single = x_BTD.shape[1] == 1 and mask_BT is None and self.mask_BL is not None
        if not single or torch.is_grad_enabled() or self.backbone.current_fused is None:
            self._bring_back()
            return super().feed(x_BTD, mask_BT)
        places_B1 = self._extend(x_BTD, None)
        assert self.mask_BL is not None
        if self._away is None:
            self._away = self._step.begin(self._state.keys_and_values())
        mask = self.backbone.mask_for(self.mask_BL, 1, self._state, self.padded)
        return self._away.append(x_BTD, places_B1, mask)

    def select(self, rows: Sequence[int]) -> None:
        """Choose rows; OpenVINO does so with the next step."""
        if self._away is None:
            super().select(rows)
            return
        self._select_columns(rows)
        self._away.select(rows)

    def join(self, other: DecoderSession) -> None:
        """Put both caches together, in torch."""
        assert isinstance(other, OpenVINOSession)
        self._bring_back()
        other._bring_back()
        super().join(other)

    def close(self) -> None:
        """Give OpenVINO's memory back."""
        if self._away is not None:
            self._away.close()
            self._away = None

    def _bring_back(self) -> None:
        """Have keys and values in torch's cache."""
        if self._away is not None:
            self._state.put_keys_and_values(self._away.read())
            self.close()

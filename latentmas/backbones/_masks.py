"""Attention masks built here, so that a step never asks the device whether anything is padded.

transformers builds masks from a 2-D padding mask too, but reads it back to the host to see whether
it may be left out. Whoever calls a step knows that already.

Shapes: `B` batch, `T` new positions, `L` columns so far (past and new), `C` columns that a layer
hands to attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Masks"]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


class Masks:
    """Makes what a decoder takes as `attention_mask`, for each kind of its layers."""

    def __init__(self, config: Any) -> None:
        types = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        self.window: int | None = window if isinstance(window, int) else None
        self.dtype: torch.dtype = torch.float32
        """Of the model: masks are added to scores."""
        self.by_type = types is not None
        only = FULL if self.window is None else SLIDING
        self.kinds = frozenset(types) if types is not None else frozenset({only})
        self._attention = getattr(config, "_attn_implementation", None)

    @property
    def possible(self) -> bool:
        """Whether all layers are of kinds known here, with an attention that takes such masks."""
        windowed = SLIDING not in self.kinds or self.window is not None
        known = self.kinds <= {FULL, SLIDING, LINEAR} and bool(self.kinds & {FULL, SLIDING})
        return known and windowed and self._attention in ("sdpa", "eager")

    def growing(self, mask_BL: Tensor, new: int, *, padded: bool) -> Any:
        """For layers that hand out what they have seen; sliding ones no more than their window.

        Args:
            mask_BL: 1 for real positions.
            new: T.
            padded: whether `mask_BL` may hold a 0.
        """
        length = mask_BL.shape[1]
        may_skip = not padded and (new > 1 or mask_BL.device.type == "cuda")
        made: dict[str, Tensor | None] = {}
        for kind in self.kinds:
            if kind == LINEAR:
                made[kind] = mask_BL[:, -new:] if padded and new > 1 else None
                continue
            window = self.window if kind == SLIDING else None
            seen = length if window is None else min(length, window - 1 + new)
            plain = new == 1 or (new == length and (window is None or length <= window))
            if plain and may_skip:
                made[kind] = None
            else:
                columns_T = torch.arange(seen - new, seen, device=mask_BL.device)
                made[kind] = self._causal(mask_BL[:, length - seen :], columns_T, window)
        return self._shaped(made)

    def fixed(self, mask_BC: Tensor, columns_T: Tensor, *, padded: bool) -> Any:
        """For layers that hand out C columns, of which later ones may not be written yet.

        Args:
            mask_BC: 1 for real positions.
            columns_T: where the new positions stand.
            padded: whether `mask_BC` may hold a 0.
        """
        new, width = columns_T.shape[0], mask_BC.shape[1]
        made: dict[str, Tensor | None] = {}
        for kind in self.kinds:
            window = self.window if kind == SLIDING else None
            if kind == LINEAR:
                made[kind] = mask_BC[:, -new:] if padded and new > 1 else None
            elif not padded and new == width > 1 and (window is None or width <= window):
                made[kind] = None
            else:
                made[kind] = self._causal(mask_BC, columns_T, window)
        return self._shaped(made)

    def _causal(self, mask_BC: Tensor, columns_T: Tensor, window: int | None) -> Tensor:
        """`(B, 1, T, C)`, to be added to scores: real columns up to one's own, within the window.

        A mask of truth values would be turned into this one in every layer.
        A position always sees itself, so that a padded one is no empty row (NaN in some kernels).
        """
        key_C = torch.arange(mask_BC.shape[1], device=mask_BC.device)
        own_TC = key_C == columns_T[:, None]
        before_TC = key_C < columns_T[:, None]
        if window is not None:
            before_TC = before_TC & (key_C > columns_T[:, None] - window)
        allowed = (mask_BC.bool()[:, None, None, :] & before_TC) | own_TC
        shut = torch.finfo(self.dtype).min
        return torch.zeros_like(allowed, dtype=self.dtype).masked_fill(~allowed, shut)

    def _shaped(self, made: dict[str, Tensor | None]) -> Any:
        return made if self.by_type else next(iter(made.values()))

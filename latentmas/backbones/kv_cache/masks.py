"""Attention masks, built here so that a step never synchronises with the device.

transformers also builds masks from a 2-D padding mask but copies it to the host to check whether it
can be omitted. The caller of a step already knows that.

Shapes: `B` batch, `T` new positions, `L` columns so far (past and new), `C` columns that a layer
passes to attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Masks"]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


class Masks:
    """Builds the `attention_mask` argument of a decoder, for each kind of its layers."""

    def __init__(self, config: Any) -> None:
        types = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        self.window: int | None = window if isinstance(window, int) else None
        self.dtype: torch.dtype = torch.float32
        """Data type of the model; masks are added to attention scores."""
        self.by_type = types is not None
        only = FULL if self.window is None else SLIDING
        self.kinds = frozenset(types) if types is not None else frozenset({only})
        self._attention = getattr(config, "_attn_implementation", None)

    @property
    def possible(self) -> bool:
        """Whether all layers are of known kinds and their attention accepts such masks."""
        windowed = SLIDING not in self.kinds or self.window is not None
        known = self.kinds <= {FULL, SLIDING, LINEAR} and bool(self.kinds & {FULL, SLIDING})
        return known and windowed and self._attention in ("sdpa", "eager")

    def growing(self, mask_BL: Tensor, new: int, *, padded: bool) -> Any:
        """Masks for layers that return all columns so far, or, if sliding, their window.

        Args:
            mask_BL: 1 for real positions, 0 for padding.
            new: Number of new positions T.
            padded: Whether `mask_BL` may contain a 0.
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
        """Masks for layers that return C columns, of which the last may not be written yet.

        Args:
            mask_BC: 1 for real positions, 0 for padding.
            columns_T: Columns of the new positions.
            padded: Whether `mask_BC` may contain a 0.
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
        """Additive mask `(B, 1, T, C)`: a position sees real columns up to its own in the window.

        A boolean mask would be converted to this one in every layer.
        A position always sees itself, because a fully masked row gives NaN in some kernels.
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

"""One position of a llama-like decoder over explicit keys and values, to be converted.

Shapes: `B` rows, `D` width, `E` width of a head, `H` heads, `L` columns so far.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentmas.backbones.fused import Layout

__all__ = ["SingleStep"]


class SingleStep(nn.Module):
    """A decoder's step with its own modules, whose weights it shares."""

    def __init__(self, decoder: Any, layout: Layout, count: int, dtype: torch.dtype) -> None:
        """Take the parts of a decoder.

        Args:
            decoder: Decoder of a class that `layout` describes.
            layout: Where its parts are.
            count: Number of layers.
            dtype: Data type of the weights.
        """
        super().__init__()
        self.dtype = dtype
        self.layers = nn.ModuleList(_Layer(one, layout) for one in decoder.layers[:count])
        self.norm = decoder.norm

    def forward(
        self, x_BD: Tensor, cos_BE: Tensor, sin_BE: Tensor, mask_B1L: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Append one position to every row.

        Args:
            x_BD: Input embeddings, in float32 as all that is not kept.
            cos_BE: Cosines of the rotation.
            sin_BE: Sines of the rotation.
            mask_B1L: Numbers to add to attention scores, the new column included.
            past: Keys and values of each layer, alternating, `(B, H, L - 1, E)`.

        Returns:
            States after the final norm, (B, D), and the new keys and values.
        """
        x_B1D = x_BD[:, None].to(self.dtype)
        cos, sin = (part[:, None, None].to(self.dtype) for part in (cos_BE, sin_BE))
        mask, kept = mask_B1L[:, :, None].to(self.dtype), list[Tensor]()
        for layer, keys, values in zip(self.layers, past[::2], past[1::2], strict=True):
            x_B1D, *new = layer(x_B1D, cos, sin, mask, keys, values)
            kept += new
        return self.norm(x_B1D)[:, 0].float(), *kept


class _Layer(nn.Module):
    def __init__(self, layer: Any, layout: Layout) -> None:
        super().__init__()
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.norm_in = layer.input_layernorm
        self.norm_mlp = getattr(layer, layout.before_mlp)
        self.norm_attended, self.norm_fed = (
            nn.Identity() if name is None else getattr(layer, name)
            for name in (layout.after_attention, layout.after_mlp)
        )
        self._width = int(self.attention.head_dim)
        # Attention scales scores by the root of the width; another scale goes into the queries.
        scale = float(self.attention.scaling) * self._width**0.5
        self._scale = 1.0 if abs(scale - 1.0) < 1e-6 else scale

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        attention, h = self.attention, self.norm_in(x)
        q, k, v = (
            self._heads(part(h)) for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if getattr(attention, "q_norm", None) is not None:
            q, k = attention.q_norm(q), attention.k_norm(k)
        q, k = q * cos + _turned(q) * sin, k * cos + _turned(k) * sin
        keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
        groups = q.shape[1] // k.shape[1]
        found = F.scaled_dot_product_attention(
            q if self._scale == 1.0 else q * self._scale,
            _repeated(keys, groups),
            _repeated(values, groups),
            attn_mask=mask,
        )
        flat = found.transpose(1, 2).reshape(found.shape[0], 1, q.shape[1] * self._width)
        x = x + self.norm_attended(attention.o_proj(flat))
        return x + self.norm_fed(self.mlp(self.norm_mlp(x))), keys, values

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 1, -1, self._width).transpose(1, 2)


def _turned(x: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return torch.cat((-high, low), -1)


def _repeated(x: Tensor, count: int) -> Tensor:
    """Each key-value head as often as queries share it, in the form that OpenVINO fuses."""
    rows, heads, columns, width = x.shape
    return (
        x[:, :, None]
        .expand(rows, heads, count, columns, width)
        .reshape(rows, heads * count, columns, width)
    )

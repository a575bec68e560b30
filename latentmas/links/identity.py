"""The identity link."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentmas.links._base import Link, LinkOptions
from latentmas.links._options import resolve_equal_widths
from latentmas.links._registry import link_kinds

__all__ = ["Identity"]


@link_kinds.register("identity")
class Identity(Link):
    """Passes latents through unchanged; no weights; equal widths only.

    Reference: the training-free control.

    Inputs: h_BKD. Output: the same h_BKD.

    Relations: `linear` with `init="near_identity"` starts here and can learn.

    Example: `graph.connect("a", "b", link="identity")`
    """

    @classmethod
    def resolve(cls, role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> LinkOptions:
        """No options; equal widths."""
        return resolve_equal_widths(role, options, in_dim, out_dim)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """The input."""
        return h_BKS

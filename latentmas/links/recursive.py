"""The link of RecursiveMAS: a residual MLP between two layer norms."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from latentmas.links._base import Link, LinkOptions, make_residual, scale_, zero_
from latentmas.links._options import ExpandedResidualOptions, resolve_recursive
from latentmas.links._registry import link_kinds

__all__ = ["Recursive"]


@link_kinds.register("recursive")
class Recursive(Link):
    """LayerNorm → Linear → GELU → Linear, plus a residual, → LayerNorm.

    Reference: RecursiveMAS (arXiv 2604.25917), with the layer norms of its published code: inner
    links add x itself and have hidden width D; outer links add Linear(x) and have hidden width 2·D.

    Inputs: h_BKS of any norm. Output: h_BKD whose rows have mean norm √D times the gain of the last
    layer norm.

    Relations: `mlp_residual` without the norms, `linear_residual` without the hidden layer.

    Example: `graph.connect("a", "b", link="recursive", expansion=4, init="ridge")`
    """

    Options = ExpandedResidualOptions
    inits = frozenset({"default", "near_identity", "ridge"})

    def __init__(self, options: ExpandedResidualOptions, in_dim: int, out_dim: int) -> None:
        super().__init__(options, in_dim, out_dim)
        hidden = options.expansion * out_dim
        self.norm_in = nn.LayerNorm(in_dim)
        self.proj1 = nn.Linear(in_dim, hidden)
        self.activation = nn.GELU()
        self.proj2 = nn.Linear(hidden, out_dim)
        self.residual = make_residual(options.residual, in_dim, out_dim)
        self.norm_out = nn.LayerNorm(out_dim)

    @classmethod
    def resolve(cls, role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> LinkOptions:
        """Defaults: expansion 1 for inner links, 2 for outer ones."""
        return resolve_recursive(role, options, in_dim, out_dim)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """`(B, K, S)` to `(B, K, D)`; the residual branch takes the raw input."""
        mlp_BKD, residual_BKD = self.branches(h_BKS)
        return self.norm_out(residual_BKD + mlp_BKD)

    def branches(self, h_BKS: Tensor) -> tuple[Tensor, Tensor]:
        """The MLP's part and the residual's."""
        mlp_BKD = self.proj2(self.activation(self.proj1(self.norm_in(h_BKS))))
        return mlp_BKD, self.residual(h_BKS)

    def start(self, init: str, alignment_DS: Tensor | None) -> None:
        """Set the MLP's output to zero and the residual near the identity or to the alignment."""
        zero_(self.proj2)
        self.residual.start(init, alignment_DS)

    def scale_output(self, factor: float) -> bool:
        """Scale the gain and bias of the last layer norm."""
        return scale_(self.norm_out, factor)

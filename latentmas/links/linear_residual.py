"""One linear layer with a residual branch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from latentmas.links._base import Link, LinkOptions, make_residual, scale_, zero_
from latentmas.links._options import ResidualOptions, resolve_residual
from latentmas.links._registry import link_kinds

__all__ = ["LinearResidual"]


@link_kinds.register("linear_residual")
class LinearResidual(Link):
    """Linear(S, D) plus a residual: x itself (inner) or another linear map of it (outer).

    Reference: the one-layer residual ablation of RecursiveMAS (arXiv 2604.25917).

    Inputs: h_BKS. Output: h_BKD.

    Relations: `linear` has no residual; `recursive` adds norms and a hidden layer.

    Example: `graph.connect("a", "b", link="linear_residual")`
    """

    Options = ResidualOptions
    inits = frozenset({"default", "near_identity", "ridge"})

    def __init__(self, options: ResidualOptions, in_dim: int, out_dim: int) -> None:
        super().__init__(options, in_dim, out_dim)
        self.proj1 = nn.Linear(in_dim, out_dim)
        self.residual = make_residual(options.residual, in_dim, out_dim)

    @classmethod
    def resolve(cls, role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> LinkOptions:
        """Default residual: identity for inner links, projection for outer ones."""
        return resolve_residual(role, options, in_dim, out_dim)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """`(B, K, S)` to `(B, K, D)`."""
        linear_BKD, residual_BKD = self.branches(h_BKS)
        return residual_BKD + linear_BKD

    def branches(self, h_BKS: Tensor) -> tuple[Tensor, Tensor]:
        """The linear branch's part and the residual's."""
        return self.proj1(h_BKS), self.residual(h_BKS)

    def start(self, init: str, alignment_DS: Tensor | None) -> None:
        """Set the linear branch to zero and the residual near the identity or to the alignment."""
        zero_(self.proj1)
        self.residual.start(init, alignment_DS)

    def scale_output(self, factor: float) -> bool:
        """Scale both branches; not possible with an identity residual."""
        return self.residual.scale(factor) and scale_(self.proj1, factor)

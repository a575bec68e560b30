"""Two linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from latentmas.links._base import Link, scale_
from latentmas.links._options import MLPOptions
from latentmas.links._registry import link_kinds

__all__ = ["MLP"]


@link_kinds.register("mlp")
class MLP(Link):
    """Linear → GELU → Linear.

    Reference: the two-layer ablation of RecursiveMAS (arXiv 2604.25917).

    Inputs: h_BKS. Output: h_BKD.

    Relations: `mlp_residual` adds a residual branch and can start aligned; this one cannot.

    Example: `graph.connect("a", "b", link="mlp", expansion=2)`
    """

    Options = MLPOptions

    def __init__(self, options: MLPOptions, in_dim: int, out_dim: int) -> None:
        super().__init__(options, in_dim, out_dim)
        hidden = options.expansion * out_dim
        self.proj1 = nn.Linear(in_dim, hidden)
        self.activation = nn.GELU()
        self.proj2 = nn.Linear(hidden, out_dim)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """`(B, K, S)` to `(B, K, D)`."""
        return self.proj2(self.activation(self.proj1(h_BKS)))

    def scale_output(self, factor: float) -> bool:
        """Scale the last layer."""
        return scale_(self.proj2, factor)

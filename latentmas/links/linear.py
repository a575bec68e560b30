"""One linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from latentmas.links._base import Link, LinkOptions, near_identity_, scale_
from latentmas.links._registry import link_kinds

__all__ = ["LinearLink"]


@link_kinds.register("linear")
class LinearLink(Link):
    """Linear(S, D).

    Reference: the one-layer ablation of RecursiveMAS (arXiv 2604.25917).

    Inputs: h_BKS. Output: h_BKD; its norm depends on the weights.

    Relations: `linear_residual` adds a residual branch; `recursive` also norms and a hidden layer.

    Example: `graph.connect("a", "b", link="linear", init="ridge")`
    """

    inits = frozenset({"default", "near_identity", "ridge"})

    def __init__(self, options: LinkOptions, in_dim: int, out_dim: int) -> None:
        super().__init__(options, in_dim, out_dim)
        self.proj1 = nn.Linear(in_dim, out_dim)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """`(B, K, S)` to `(B, K, D)`."""
        return self.proj1(h_BKS)

    def start(self, init: str, alignment_DS: Tensor | None) -> None:
        """The identity, or the alignment itself."""
        near_identity_(self.proj1, alignment_DS if init == "ridge" else None)

    def scale_output(self, factor: float) -> bool:
        """Scale weight and bias."""
        return scale_(self.proj1, factor)

"""The vocabulary head on packed weights."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from torch.autograd import forward_ad

from latentmas.backbones._base import Family
from latentmas.backbones.fused.merging import is_plain
from latentmas.backbones.fused.products import make_product, packs

__all__ = ["PackedHead", "pack_head"]


class PackedHead:
    """A product in place of the module that maps states to scores."""

    def __init__(self, module: nn.Linear) -> None:
        """Pack the weights of a head."""
        self._module, self._weight = module, module.weight
        bias = module.bias
        self._product = make_product(module.weight.data, None if bias is None else bias.data)

    def serves(self, h: Tensor) -> bool:
        """Whether these states may be mapped: rows without tangents, by an unchanged module.

        Gradients must be off, which says nothing about tangents of forward differentiation.
        """
        module = self._module
        return not (
            h.dim() != 2
            or forward_ad.unpack_dual(h).tangent is not None
            or module.weight is not self._weight
            or module._forward_hooks
            or module._forward_pre_hooks
        )

    def __call__(self, h_BD: Tensor) -> Tensor:
        """Scores before scaling and caps, (B, V)."""
        return self._product(h_BD)


def pack_head(family: Family, model: Any) -> PackedHead | None:
    """The head of a model on packed weights; None where they are not packed.

    It takes a head of ordinary weights, and a family whose `logits` takes a `head`.
    """
    module = model.get_output_embeddings()
    if module is None or not is_plain([(module,)]) or not packs(module.weight):
        return None
    return PackedHead(module) if "head" in inspect.signature(family.logits).parameters else None

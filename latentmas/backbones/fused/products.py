"""Products with frozen weights, as fast as plain torch makes them.

Shapes: `B` rows, `N` outputs, `K` inputs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Product", "make_product", "packs"]


class Product(ABC):
    """A linear map of rows."""

    nbytes = 0
    """Bytes of a second copy of the weights."""

    @abstractmethod
    def __call__(self, x_BK: Tensor) -> Tensor:
        """Map rows, (B, N)."""

    @abstractmethod
    def added(self, residual_BN: Tensor, x_BK: Tensor) -> Tensor:
        """Map rows and add the residual."""


class _Plain(Product):
    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self._weight_KN, self._bias_N = weight_NK.t(), bias_N

    def __call__(self, x_BK: Tensor) -> Tensor:
        if self._bias_N is None:
            return torch.mm(x_BK, self._weight_KN)
        return torch.addmm(self._bias_N, x_BK, self._weight_KN)

    def added(self, residual_BN: Tensor, x_BK: Tensor) -> Tensor:
        if self._bias_N is None:
            return torch.addmm(residual_BN, x_BK, self._weight_KN)
        return residual_BN + self(x_BK)


class _Packed(Product):
    """A product with weights in oneDNN's own order."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_NK)
        self._bias_N, self.nbytes = bias_N, weight_NK.nbytes
        self._map = torch.ops.mkldnn._linear_pointwise.default
        self._map_and_add = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x_BK: Tensor) -> Tensor:
        found: Tensor = self._map(x_BK, self._weight, self._bias_N, "none", [], "")
        return found

    def added(self, residual_BN: Tensor, x_BK: Tensor) -> Tensor:
        found: Tensor = self._map_and_add(x_BK, residual_BN, self._weight, self._bias_N, "add")
        return found


def make_product(weight_NK: Tensor, bias_N: Tensor | None) -> Product:
    """The product with a matrix; its weights are packed where `packs` says so."""
    return (_Packed if packs(weight_NK) else _Plain)(weight_NK, bias_N)


def packs(weight: Tensor) -> bool:
    """Whether products run on packed weights: on CPUs that have instructions for bf16.

    The packed weights are a second copy. `LATENTMAS_PACK=0` in the environment does without it.
    SmolLM2's products took 7.3 ms packed and 9.6 ms plain for 1 row, and 8.8 and 12.8 ms for
    4 rows; its vocabulary head 4.6 and 6.6 ms, and 5.8 and 9.0 ms (one thread of a Xeon with
    AVX-512).
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if os.environ.get("LATENTMAS_PACK") == "0":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and torch.backends.mkldnn.is_available() and bool(supported())

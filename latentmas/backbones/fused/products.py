"""Products with frozen weights, as fast as plain torch makes them.

Shapes: `B` rows, `N` outputs, `K` inputs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

__all__ = ["Product", "fewest_wide", "make_product", "packs"]

PIECE = 2**21
"""Weights that are converted at once, at most or so: they stay in the cache."""


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


class _Wide(Product):
    """Products of many rows with half-precision weights, in fp32 arithmetic.

    Results are rounded once, as those of half-precision products are, which add in fp32, too.
    """

    def __init__(
        self, narrow: Product, weight_NK: Tensor, bias_N: Tensor | None, fewest: int
    ) -> None:
        """Wrap what maps fewer than `fewest` rows."""
        self._narrow, self._fewest, self.nbytes = narrow, fewest, narrow.nbytes
        size = max(1, PIECE // weight_NK.shape[1])
        biases = [None] if bias_N is None else bias_N.split(size)
        self._pieces = list(zip_longest(weight_NK.split(size), biases))

    def __call__(self, x_BK: Tensor) -> Tensor:
        if len(x_BK) < self._fewest:
            return self._narrow(x_BK)
        return self._map(x_BK, None)

    def added(self, residual_BN: Tensor, x_BK: Tensor) -> Tensor:
        if len(x_BK) < self._fewest:
            return self._narrow.added(residual_BN, x_BK)
        return self._map(x_BK, residual_BN)

    def _map(self, x_BK: Tensor, residual_BN: Tensor | None) -> Tensor:
        wide_BK, found, start = x_BK.float(), list[Tensor](), 0
        for weight, bias in self._pieces:
            piece = torch.mm(wide_BK, weight.float().t())
            if bias is not None:
                piece += bias
            if residual_BN is not None:
                piece += residual_BN[:, start : start + len(weight)]
            found.append(piece.to(x_BK.dtype))
            start += len(weight)
        return found[0] if len(found) == 1 else torch.cat(found, 1)


def make_product(weight_NK: Tensor, bias_N: Tensor | None) -> Product:
    """The product with a matrix.

    Its weights are packed where `packs` says so, and widened where `fewest_wide` does.
    """
    product = (_Packed if packs(weight_NK) else _Plain)(weight_NK, bias_N)
    fewest = fewest_wide(weight_NK)
    return product if fewest is None else _Wide(product, weight_NK, bias_N, fewest)


def fewest_wide(weight: Tensor) -> int | None:
    """Number of rows from which half-precision products are faster in fp32; None: never.

    Weights are converted in each call, some at a time. SmolLM2's largest matrix took 41 ms for
    1,024 rows in bf16 and 23 ms in fp32, and 2.6 and 2.3 ms for 64 rows (one thread of a Xeon with
    AVX-512 and its bf16 instructions, without AMX, which makes bf16 products the faster ones).
    Where oneDNN has no half-precision products, those of torch took 4.2 ms for 16 rows, and 1.3 ms
    in fp32.
    """
    known = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    kind = known.get(weight.dtype)
    query: Any = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch lack it
    can = query() if weight.device.type == "cpu" else {}
    if kind is None or can.get("architecture") != "x86_64":
        return None
    if can.get(f"amx_{kind}") or (kind == "fp16" and can.get("avx512_fp16")):
        return None
    return 64 if _has_products(kind) else 8


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
    return _has_products("bf16")


def _has_products(kind: str) -> bool:
    """Whether oneDNN has products of a half-precision type on this CPU."""
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported", None)
    return supported is not None and torch.backends.mkldnn.is_available() and bool(supported())

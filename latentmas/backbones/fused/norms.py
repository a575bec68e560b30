"""Root-mean-square norms in few operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["make_norm"]


def make_norm(
    weight: Tensor, eps: float, offset: float, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """A norm whose statistics are taken in fp32, as in transformers.

    Args:
        weight: Scale of each column.
        eps: Added to the mean square.
        offset: Added to the weights. If it is not 0, they are applied in fp32.
        dtype: Data type of the result.

    Returns:
        Rows to normalised rows, along the last dimension.
    """
    size = tuple(weight.shape)
    if weight.device.type == "cpu" and dtype != torch.float64:
        return _by_length(weight.float() + offset, eps, dtype)
    if offset:
        wide = offset + weight.float()
        return lambda x: F.rms_norm(x.float(), size, wide, eps).to(dtype)
    if dtype == torch.float64:
        return lambda x: weight * F.rms_norm(x.float(), size, None, eps).to(dtype)
    return lambda x: F.rms_norm(x, size, weight, eps)


def _by_length(weight: Tensor, eps: float, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A norm by 4 operations on a row's length; torch's own takes 10 on CPUs.

    Between products that fill the caches, a step of SmolLM2 took 2.5 ms for its norms in torch's
    way (61 of them, one row).
    """
    width, wide = weight.shape[-1], torch.float32
    scale, least = weight * width**0.5, weight.new_tensor((width * eps) ** 0.5)
    length = torch.linalg.vector_norm

    def norm(x: Tensor) -> Tensor:
        found = torch.mul(x, scale).div_(length(x, 2, -1, True, dtype=wide).hypot_(least))
        return found if dtype == wide else found.to(dtype)

    return norm

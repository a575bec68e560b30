"""Attention in fp32 for half-precision models on a CPU when gradients are needed.

torch's CPU kernel for the backward pass of half-precision attention is slow: forward and backward
of 16 rows, 9 heads and 28 against 52 positions took 18.5 ms in bfloat16, and 7.0 ms with a detour
through fp32 (one thread of a Xeon with AVX-512, without AMX). Without gradients nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["exact_attention"]

HALF = (torch.bfloat16, torch.float16)
FEWEST = 4
"""Minimum number of queries at which the detour pays off; a latent step has one."""


class _InFp32(TorchFunctionMode):
    """Runs scaled dot-product attention in fp32, whichever model calls it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, with arguments in fp32 if it is attention."""
        options = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **options)
        query = args[0] if args else options["query"]
        if query.dtype not in HALF or query.shape[-2] < FEWEST:
            return func(*args, **options)
        wide = [_widened(value) for value in args]
        found: Tensor = func(*wide, **{name: _widened(v) for name, v in options.items()})
        return found.to(query.dtype)


def _widened(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in HALF
    return value.float() if half else value


@contextmanager
def exact_attention(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Context in which a half-precision model on a CPU runs attention in fp32 if gradients are on.

    Args:
        device: Device of the model.
        dtype: Data type of the model.
    """
    if device.type != "cpu" or dtype not in HALF or not torch.is_grad_enabled():
        yield
        return
    with _InFp32():
        yield

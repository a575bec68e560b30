"""The data type in which this hardware multiplies fast."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["fast_dtype"]


def fast_dtype(device: str) -> str:
    """Name of the data type for weights that are not quantised, by the device.

    Args:
        device: `"cpu"`, `"cuda:0"` and so on.

    Returns:
        `"bfloat16"` on an accelerator and on CPUs that multiply matrices of bfloat16 (Intel's
        AMX), otherwise `"float32"`: other CPUs train no faster in bfloat16.
    """
    if not device.startswith("cpu"):
        return "bfloat16"
    query: Any = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch lack it
    return "bfloat16" if query().get("amx_bf16") else "float32"

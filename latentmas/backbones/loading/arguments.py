"""What transformers is asked for when a declared backbone is loaded."""

from __future__ import annotations

from typing import Any

import torch

from latentmas.backbones.loading.files import Files
from latentmas.backbones.loading.libraries import check_library
from latentmas.backbones.loading.quantization import check_not_quantized, quantization_config
from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.spec import Backbone

__all__ = ["is_quantized", "loading_arguments"]


def is_quantized(spec: Backbone, config: Any) -> bool:
    """Whether the weights will be quantised, by the declaration or by the checkpoint."""
    return spec.quantization is not None or (
        getattr(config, "quantization_config", None) is not None
    )


def loading_arguments(
    spec: Backbone, files: Files, config: Any, *, dtype: str, device: str
) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a declared backbone.

    Args:
        spec: The declaration.
        files: Where its files are.
        config: Its configuration.
        dtype: Data type of the weights that are not quantised, or `"auto"`.
        device: Device on which quantised weights are made; they cannot be moved by every library.

    Raises:
        RefusedBackboneError: LM204 or LM206, the quantization cannot be used.
    """
    wanted: Any = dtype if dtype == "auto" else getattr(torch, dtype)
    arguments = {**spec.load, **files.options, "dtype": wanted}
    arguments["attn_implementation"] = spec.attention
    if not is_quantized(spec, config):
        return arguments
    if dtype == "float64":
        raise RefusedBackboneError(
            "LM204",
            "its weights are quantised, and products with them cannot be in float64",
            'choose dtype="bfloat16" or dtype="float32"',
        )
    if spec.quantization is not None:
        check_library(spec.quantization)
        check_not_quantized(spec.quantization, config)
        of_products = config.dtype if wanted == "auto" else wanted
        arguments["quantization_config"] = quantization_config(spec.quantization, of_products)
    return arguments | {"device_map": {"": device}}

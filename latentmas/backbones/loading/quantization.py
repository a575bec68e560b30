"""Quantised weights: what transformers is told, how many bits they take, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.plan import QuantizedCosts
from latentmas.spec import Quantization

__all__ = [
    "check_not_quantized",
    "gradient_fault",
    "keep_gradients",
    "quantization_config",
    "quantized_costs",
    "stored_bits",
]

HEADS = ("lm_head", "embed_out")
"""Names of vocabulary heads, which the libraries spare only if no other module is named."""
COLUMNS = 8
TOLERANCE = 0.05
_BITS = {"fp8": 8.0, "fbgemm_fp8": 8.0, "mxfp4": 4.25, "mxfp8": 8.25}
"""Stored bits per weight, with scales, of methods without options that change them."""


def check_not_quantized(quantization: Quantization, config: PreTrainedConfig) -> None:
    """Check that a checkpoint has full weights, which can be quantised.

    Raises:
        RefusedBackboneError: LM204, the checkpoint is quantised.
    """
    own = _own_config(config)
    if own is not None:
        raise RefusedBackboneError(
            "LM204",
            f"quantization is {quantization.kind!r}, but the checkpoint is already quantised "
            f"({own.get('quant_method', 'unknown method')})",
            "leave quantization out: the checkpoint is loaded as it is",
        )


def quantization_config(quantization: Quantization, dtype: torch.dtype | None) -> Any:
    """The configuration that transformers is given.

    Args:
        quantization: As declared.
        dtype: Data type of the products of 4-bit layers; None uses bfloat16.
    """
    skipped = [*quantization.skip_modules, *HEADS] if quantization.skip_modules else None
    if quantization.package == "torchao":
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        int8 = quantization.kind == "torchao:int8_weight_only"
        kind: Any = Int8WeightOnlyConfig() if int8 else Float8WeightOnlyConfig()
        return TorchAoConfig(kind, modules_to_not_convert=skipped)
    import bitsandbytes  # noqa: F401  # transformers quantises with it
    from transformers import BitsAndBytesConfig

    if quantization.kind == "bitsandbytes:int8":
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=quantization.threshold,
            llm_int8_skip_modules=skipped,
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.kind.partition(":")[2],
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
        llm_int8_skip_modules=skipped,
    )


def quantized_costs(
    model: Any, decoder: nn.Module, quantization: Quantization | None
) -> QuantizedCosts | None:
    """Counts of the weights that loading would quantise, from a model without data.

    Args:
        model: The model, with full weights.
        decoder: Its decoder.
        quantization: As declared; None: the checkpoint's own, if any.

    Raises:
        ValueError: The checkpoint is quantised in a way whose size is unknown.
    """
    own = _own_config(model.config)
    if quantization is None and own is None:
        return None
    bits = stored_bits(own) if quantization is None else quantization.bits
    skipped = quantization.skip_modules if quantization else _skipped_by(own or {})
    patterns = [*skipped, *HEADS, *get_keys_to_not_convert(model)]
    converted = {
        id(module.weight): module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and should_convert_module(name, patterns)
    }
    body = {id(weight) for weight in decoder.parameters()}
    return QuantizedCosts(
        bits=bits,
        body_parameters=sum(count for key, count in converted.items() if key in body),
        loaded_parameters=sum(converted.values()),
    )


def stored_bits(own: Mapping[str, Any] | None) -> float:
    """Stored bits per weight of a checkpoint that is quantised.

    Raises:
        ValueError: They do not follow from its configuration.
    """
    method = str((own or {}).get("quant_method", ""))
    told = dict(own or {})
    if method == "bitsandbytes" or "load_in_4bit" in told or "load_in_8bit" in told:
        if not told.get("load_in_4bit"):
            return 8.0
        double = bool(told.get("bnb_4bit_use_double_quant"))
        return Quantization(kind="bitsandbytes:nf4", double_quant=double).bits
    if method == "torchao":
        name = str(told.get("quant_type", "")).lower()
        if "int8" in name or "float8" in name:
            return 8.0
    if method in ("gptq", "awq") and isinstance(told.get("bits"), int):
        group = told.get("group_size")
        return float(told["bits"]) + (20 / group if isinstance(group, int) and group > 0 else 0)
    if method in _BITS:
        return _BITS[method]
    raise ValueError(f"the size of weights quantised by {method or 'an unknown method'} is unknown")


def _own_config(config: PreTrainedConfig) -> dict[str, Any] | None:
    own = getattr(config, "quantization_config", None)
    if own is None:
        return None
    return dict(own) if isinstance(own, Mapping) else dict(own.to_dict())


def _skipped_by(own: Mapping[str, Any]) -> list[str]:
    names = own.get("modules_to_not_convert") or own.get("llm_int8_skip_modules") or ()
    return [str(name) for name in names]


def keep_gradients(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for a CPU, after which gradients are lost.

    It does so at the first call without gradients, and later calls return nothing to differentiate.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def gradient_fault(decoder: nn.Module) -> str | None:
    """Reason why a quantised model's gradients are not those of its outputs; None if they are.

    A layer with quantised activations may run well and return a gradient of rounding alone. Each
    layer is linear, so its columns, found by running it on unit vectors, give its true gradient.
    """
    linear = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    if not linear:
        return None
    layer = min(linear, key=lambda module: module.in_features * module.out_features)
    dtype = next(p.dtype for p in decoder.parameters() if p.is_floating_point())
    device = layer.weight.device
    rows_CI = torch.eye(layer.in_features, dtype=dtype, device=device)[:COLUMNS]
    generator = torch.Generator().manual_seed(0)
    along_O = torch.randn(layer.out_features, generator=generator).to(device, dtype)
    x_I = torch.randn(1, layer.in_features, generator=generator).to(device, dtype)
    with torch.no_grad():
        bias = 0 if layer.bias is None else layer.bias
        wanted = (layer(rows_CI) - bias).float() @ along_O.float()
    with torch.enable_grad():
        found = _gradient(layer, x_I.requires_grad_(), along_O)[0, :COLUMNS].float()
    difference = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)
    if float(difference.nan_to_num(nan=float("inf"))) < TOLERANCE:
        return None
    return (
        f"the gradients of a quantised layer ({type(layer.weight).__name__}) are not those of its "
        f"outputs (relative difference {float(difference):.2g})"
    )


def _gradient(layer: nn.Linear, x_I: Tensor, along_O: Tensor) -> Tensor:
    y_O = layer(x_I)
    if not y_O.requires_grad:
        return torch.full_like(x_I, float("nan"))
    (gradient,) = torch.autograd.grad(y_O, x_I, along_O[None], allow_unused=True)
    return torch.full_like(x_I, float("nan")) if gradient is None else gradient

"""Counts for the cost model, measured on a model built and run on the meta device.

Shapes: `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from latentmas.backbones._registry import find_family
from latentmas.backbones.loading.classes import model_class
from latentmas.backbones.loading.quantization import quantized_costs
from latentmas.plan import BackboneCosts
from latentmas.spec import Quantization

__all__ = ["measure_costs"]

_measured: dict[tuple[str, str | None, bool, str], BackboneCosts | None] = {}
"""Cache of counts by arguments; many agents and plans share a model."""


def measure_costs(
    config: PreTrainedConfig,
    *,
    family: str | None = None,
    trust_remote_code: bool = False,
    quantization: Quantization | None = None,
) -> BackboneCosts | None:
    """Count what a model with this configuration reads, stores and computes.

    Args:
        config: Configuration of the model.
        family: Name of its family. None: selected by the model's type.
        trust_remote_code: Value from the backbone's declaration.
        quantization: As declared. None: the checkpoint's own, if any.

    Returns:
        None if the counts are unknown: the model cannot be built or run without weights, is
        quantised in a way whose size is unknown, or is a mixture of experts, which reads different
        weights for each position.
    """
    quantized = "" if quantization is None else quantization.fingerprint
    key = (config.to_json_string(), family, trust_remote_code, quantized)
    if key not in _measured:
        try:
            _measured[key] = _measure(config, family, trust_remote_code, quantization)
        except Exception:  # arbitrary model code runs here, on tensors without data
            _measured[key] = None
    return _measured[key]


@torch.no_grad()
def _measure(
    config: PreTrainedConfig,
    family_name: str | None,
    trust_remote_code: bool,
    quantization: Quantization | None,
) -> BackboneCosts | None:
    text: Any = config.get_text_config(decoder=True)
    if any("expert" in name and _several(value) for name, value in text.to_dict().items()):
        return None
    family = find_family(text.model_type, family_name)
    with torch.device("meta"):
        model = model_class(config).from_config(config, trust_remote_code=trust_remote_code)
        decoder, cache = family.decoder(model.eval()), family.new_cache(model)
        decoder(
            inputs_embeds=torch.empty(1, 1, text.hidden_size),
            attention_mask=None,
            position_ids=torch.zeros(1, 1, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
        )
    state = _state(cache.layers, text.num_attention_heads)
    if state is None:
        return None
    dtype = getattr(config, "dtype", None) or getattr(text, "dtype", None)
    return BackboneCosts(
        **_parameters(model, decoder),
        **state,
        quantized=quantized_costs(model, decoder, quantization),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
    )


def _several(value: Any) -> bool:
    return isinstance(value, int) and value > 1


def _parameters(model: Any, decoder: nn.Module) -> dict[str, Any]:
    head = list(model.get_output_embeddings().parameters())
    apart = {id(p) for p in [*model.get_input_embeddings().parameters(), *head]}
    body = [p for p in decoder.parameters() if id(p) not in apart]
    return {
        "body_parameters": sum(p.numel() for p in body),
        "head_parameters": sum(p.numel() for p in head),
        "loaded_parameters": sum(p.numel() for p in model.parameters()),
        "widest": max(max(p.shape) for p in body if p.dim() == 2),
    }


def _state(layers: list[Any], heads: int) -> dict[str, Any] | None:
    """Contents of a cache after one position of one row; None if a layer is of an unknown kind."""
    found = [part for layer in layers for part in (*_attention(layer, heads), *_recurrent(layer))]
    windows = {layer.sliding_window for layer in layers if getattr(layer, "is_sliding", False)}
    kinds = [kind for kind, _ in found]
    if len(windows) > 1 or len(kinds) < len(layers):
        return None
    counts: dict[str, int] = {}
    for _, numbers in found:
        for name, number in numbers.items():
            counts[name] = counts.get(name, 0) + number
    inputs = {state.shape[1] for layer in layers for state in _tensors(layer, "conv_states")}
    return {
        **counts,
        "recurrent_width": max(inputs, default=0),
        "layers": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "sliding_window": next(iter(windows), None),
    }


def _attention(layer: Any, heads: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Kind and counts of a layer that stores keys and values."""
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if isinstance(keys, Tensor) and isinstance(values, Tensor):
        form = "sliding_" if getattr(layer, "is_sliding", False) else ""
        width = heads * (keys.shape[-1] + values.shape[-1]) // 2
        elements = keys.numel() + values.numel()
        kind = form.removesuffix("_") or "full"
        yield kind, {f"{form}attention_width": width, f"{form}kv_elements": elements}


def _recurrent(layer: Any) -> Iterator[tuple[str, dict[str, int]]]:
    """Kind and counts of a layer with a recurrent state."""
    states = _tensors(layer, "recurrent_states")
    if states:
        conv = sum(state.numel() for state in _tensors(layer, "conv_states"))
        recurrent = sum(state.numel() for state in states)
        yield "recurrent", {"recurrent_elements": recurrent, "conv_elements": conv}


def _tensors(layer: Any, name: str) -> list[Tensor]:
    states = getattr(layer, name, None)
    found = states.values() if isinstance(states, dict) else states or []
    return [state for state in found if isinstance(state, Tensor)]

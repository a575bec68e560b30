"""Arguments of `from_pretrained` that `Backbone.load` does not take, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["refused_arguments"]

_AT_LOAD = "places are chosen when the plan is loaded: pass device=… to plan.load"
_CODE = "it runs code from the hub, and has no field"
_KEPT = "latentmas sets it for each call"
_QUANTIZED = "use the field quantization"
_WEIGHTS = "the weights must be those of the checkpoint: save the changed model to a folder"
_REFUSED: dict[str, str] = {
    "dtype": "use the field dtype",
    "torch_dtype": "use the field dtype",
    "revision": "use the field revision",
    "subfolder": "use the field subfolder",
    "trust_remote_code": "use the field trust_remote_code",
    "attn_implementation": "use the field attention",
    "quantization_config": _QUANTIZED,
    "load_in_4bit": _QUANTIZED,
    "load_in_8bit": _QUANTIZED,
    "gguf_file": "give the path of the file as source",
    "token": "the hub's client reads the token from HF_TOKEN",
    "use_auth_token": "the hub's client reads the token from HF_TOKEN",
    "cache_dir": "set HF_HOME, which applies to all downloads",
    "device_map": _AT_LOAD,
    "max_memory": _AT_LOAD,
    "offload_folder": _AT_LOAD,
    "offload_buffers": _AT_LOAD,
    "tp_plan": _AT_LOAD,
    "tp_size": _AT_LOAD,
    "device_mesh": _AT_LOAD,
    "distributed_config": _AT_LOAD,
    "auto_map": _CODE,
    "use_kernels": _CODE,
    "kernel_config": _CODE,
    "allow_all_kernels": _CODE,
    "config": "give the fields of the configuration themselves",
    "state_dict": _WEIGHTS,
    "ignore_mismatched_sizes": _WEIGHTS,
    "adapter_kwargs": "adapters are not read through load",
    "adapter_name": "adapters are not read through load",
    "weights_only": "weights are never unpickled",
    "model_type": "it follows from the checkpoint",
    "architectures": "it follows from the checkpoint",
    "output_loading_info": _KEPT,
    "output_hidden_states": _KEPT,
    "output_attentions": _KEPT,
    "return_dict": _KEPT,
    "use_cache": _KEPT,
}
"""Argument → what to use instead, or why there is nothing."""


def refused_arguments(load: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each argument that is refused, with what to use instead."""
    for name in load:
        if name.startswith("_"):
            yield name, "names that begin with _ are internal to transformers"
        elif name in _REFUSED:
            yield name, _REFUSED[name]

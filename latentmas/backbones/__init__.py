"""Frozen language models: the only code that accesses a model's internals. One family per file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.backbones._facts import read_info, with_adapter_facts
from latentmas.backbones._registry import families, parts_of
from latentmas.backbones.adapters.config import AdapterError
from latentmas.backbones.loading.files import resolve_source
from latentmas.backbones.loading.refusals import RefusedBackboneError, UnsuitableBackboneError
from latentmas.lazy import imported_when_used

if TYPE_CHECKING:
    from latentmas.backbones._base import Family
    from latentmas.backbones._chat import chat_text, render_turns
    from latentmas.backbones._loaded import LoadedBackbone
    from latentmas.backbones._tokens import outside_ids, segment_ids
    from latentmas.backbones.adapters.views import lora_targets, with_adapter, with_lora
    from latentmas.backbones.devices.mesh import Mesh, open_mesh
    from latentmas.backbones.devices.split import Split
    from latentmas.backbones.devices.spread import STRATEGIES, Spread
    from latentmas.backbones.devices.tensor_parallel import TensorSplit, check_tensor_parallel
    from latentmas.backbones.kv_cache.buffers import StaticBuffers
    from latentmas.backbones.kv_cache.growing import Growing, GrowingWindow, grown_columns
    from latentmas.backbones.kv_cache.masks import FULL
    from latentmas.backbones.kv_cache.state import ON_NEW, KVCache, RowSelection
    from latentmas.backbones.kv_cache.static import StaticKVCache
    from latentmas.backbones.loading.dtypes import fast_dtype
    from latentmas.backbones.loading.given import adopt_models, given_info
    from latentmas.backbones.loading.load import load_backbone
    from latentmas.backbones.openvino import OpenVINORows, OpenVINOStep, openvino_step

__all__ = [
    "AdapterError",
    "FULL",
    "Growing",
    "GrowingWindow",
    "ON_NEW",
    "RowSelection",
    "Family",
    "LoadedBackbone",
    "KVCache",
    "StaticBuffers",
    "StaticKVCache",
    "RefusedBackboneError",
    "Mesh",
    "OpenVINORows",
    "OpenVINOStep",
    "STRATEGIES",
    "Split",
    "Spread",
    "TensorSplit",
    "UnsuitableBackboneError",
    "adopt_models",
    "chat_text",
    "check_tensor_parallel",
    "families",
    "fast_dtype",
    "given_info",
    "grown_columns",
    "load_backbone",
    "lora_targets",
    "open_mesh",
    "openvino_step",
    "outside_ids",
    "parts_of",
    "read_info",
    "render_turns",
    "resolve_source",
    "segment_ids",
    "with_adapter",
    "with_adapter_facts",
    "with_lora",
]

_HOMES = {
    "FULL": "kv_cache.masks",
    "Family": "_base",
    "Growing": "kv_cache.growing",
    "GrowingWindow": "kv_cache.growing",
    "LoadedBackbone": "_loaded",
    "ON_NEW": "kv_cache.state",
    "RowSelection": "kv_cache.state",
    "KVCache": "kv_cache.state",
    "Mesh": "devices.mesh",
    "OpenVINORows": "openvino",
    "OpenVINOStep": "openvino",
    "STRATEGIES": "devices.spread",
    "Split": "devices.split",
    "Spread": "devices.spread",
    "StaticBuffers": "kv_cache.buffers",
    "StaticKVCache": "kv_cache.static",
    "adopt_models": "loading.given",
    "TensorSplit": "devices.tensor_parallel",
    "chat_text": "_chat",
    "fast_dtype": "loading.dtypes",
    "given_info": "loading.given",
    "check_tensor_parallel": "devices.tensor_parallel",
    "grown_columns": "kv_cache.growing",
    "load_backbone": "loading.load",
    "lora_targets": "adapters.views",
    "open_mesh": "devices.mesh",
    "openvino_step": "openvino",
    "outside_ids": "_tokens",
    "render_turns": "_chat",
    "segment_ids": "_tokens",
    "with_adapter": "adapters.views",
    "with_lora": "adapters.views",
}

__getattr__ = imported_when_used(__name__, _HOMES)

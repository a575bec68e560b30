"""Frozen language models: the only code that accesses a model's internals. One family per file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.backbones._facts import UnsuitableBackboneError, read_info, resolve_source
from latentmas.backbones._registry import families, parts_of
from latentmas.lazy import imported_when_used

if TYPE_CHECKING:
    from latentmas.backbones._base import Family
    from latentmas.backbones._chat import chat_text, render_turns
    from latentmas.backbones._loaded import LoadedBackbone, load_backbone
    from latentmas.backbones._mesh import Mesh, open_mesh
    from latentmas.backbones._split import Split
    from latentmas.backbones._spread import STRATEGIES, Spread
    from latentmas.backbones._tensor_parallel import TensorSplit, check_tensor_parallel
    from latentmas.backbones._tokens import outside_ids, segment_ids
    from latentmas.backbones.kv_cache.growing import Growing, GrowingWindow, grown_columns
    from latentmas.backbones.kv_cache.masks import FULL
    from latentmas.backbones.kv_cache.state import ON_NEW, KVCache, RowSelection
    from latentmas.backbones.kv_cache.static import StaticKVCache

__all__ = [
    "FULL",
    "Growing",
    "GrowingWindow",
    "ON_NEW",
    "RowSelection",
    "Family",
    "LoadedBackbone",
    "KVCache",
    "StaticKVCache",
    "Mesh",
    "STRATEGIES",
    "Split",
    "Spread",
    "TensorSplit",
    "UnsuitableBackboneError",
    "chat_text",
    "check_tensor_parallel",
    "families",
    "grown_columns",
    "load_backbone",
    "open_mesh",
    "outside_ids",
    "parts_of",
    "read_info",
    "render_turns",
    "resolve_source",
    "segment_ids",
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
    "Mesh": "_mesh",
    "STRATEGIES": "_spread",
    "Split": "_split",
    "Spread": "_spread",
    "StaticKVCache": "kv_cache.static",
    "TensorSplit": "_tensor_parallel",
    "chat_text": "_chat",
    "check_tensor_parallel": "_tensor_parallel",
    "grown_columns": "kv_cache.growing",
    "load_backbone": "_loaded",
    "open_mesh": "_mesh",
    "outside_ids": "_tokens",
    "render_turns": "_chat",
    "segment_ids": "_tokens",
}

__getattr__ = imported_when_used(__name__, _HOMES)

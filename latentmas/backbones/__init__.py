"""Frozen language models: the only code that accesses a model's internals. One family per file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentmas.backbones._facts import UnsuitableBackboneError, read_info, resolve_source
from latentmas.backbones._registry import families, parts_of

if TYPE_CHECKING:
    from latentmas.backbones._base import Family
    from latentmas.backbones._chat import chat_text, render_turns
    from latentmas.backbones._growing import Growing, GrowingWindow, grown_columns
    from latentmas.backbones._loaded import LoadedBackbone, load_backbone
    from latentmas.backbones._masks import FULL
    from latentmas.backbones._state import ON_NEW, Part, State
    from latentmas.backbones._static import StaticState
    from latentmas.backbones._tokens import outside_ids, segment_ids

__all__ = [
    "FULL",
    "Growing",
    "GrowingWindow",
    "ON_NEW",
    "Part",
    "Family",
    "LoadedBackbone",
    "State",
    "StaticState",
    "UnsuitableBackboneError",
    "chat_text",
    "families",
    "grown_columns",
    "load_backbone",
    "outside_ids",
    "parts_of",
    "read_info",
    "render_turns",
    "resolve_source",
    "segment_ids",
]

_HOMES = {
    "FULL": "_masks",
    "Growing": "_growing",
    "GrowingWindow": "_growing",
    "ON_NEW": "_state",
    "Part": "_state",
    "Family": "_base",
    "LoadedBackbone": "_loaded",
    "State": "_state",
    "StaticState": "_static",
    "chat_text": "_chat",
    "grown_columns": "_growing",
    "load_backbone": "_loaded",
    "outside_ids": "_tokens",
    "render_turns": "_chat",
    "segment_ids": "_tokens",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

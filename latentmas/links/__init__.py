"""Link kinds: trainable maps of latents, one kind per file, looked up by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentmas.links._options import LinkOptions
from latentmas.links._registry import link_kinds
from latentmas.links._sketches import LinkSketch, link_sketch

if TYPE_CHECKING:
    from latentmas.links._base import Link, LinkBackbone, LinkReads

__all__ = [
    "Link",
    "LinkBackbone",
    "LinkOptions",
    "LinkReads",
    "LinkSketch",
    "link_kinds",
    "link_sketch",
]


def __getattr__(name: str) -> Any:
    if name in ("Link", "LinkBackbone", "LinkReads"):
        from latentmas.links import _base

        return getattr(_base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

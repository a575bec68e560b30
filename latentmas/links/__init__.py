"""Link kinds: trainable maps of latents, one kind per file, looked up by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentmas.links._registry import link_kinds

if TYPE_CHECKING:
    from latentmas.links._base import Link, LinkBackbone, LinkOptions, LinkReads

__all__ = ["Link", "LinkBackbone", "LinkOptions", "LinkReads", "link_kinds"]


def __getattr__(name: str) -> Any:
    if name in ("Link", "LinkBackbone", "LinkOptions", "LinkReads"):
        from latentmas.links import _base

        return getattr(_base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

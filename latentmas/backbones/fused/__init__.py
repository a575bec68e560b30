"""A decoder's states, computed with fewer and larger operations than its modules do."""

from __future__ import annotations

from latentmas.backbones.fused.decoder import FusedDecoder
from latentmas.backbones.fused.fuse import fault_of, fuse, may_merge
from latentmas.backbones.fused.head import PackedHead, pack_head
from latentmas.backbones.fused.layouts import Layout, layout_of, layouts
from latentmas.backbones.fused.merging import merge_decoder

__all__ = [
    "FusedDecoder",
    "Layout",
    "PackedHead",
    "fault_of",
    "fuse",
    "layout_of",
    "layouts",
    "may_merge",
    "merge_decoder",
    "pack_head",
]

"""Whether a loaded backbone's steps may be fused: a few tokens decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from latentmas.backbones.fused.decoder import FusedDecoder, Unfusable
from latentmas.backbones.fused.layouts import layout_of
from latentmas.backbones.fused.merging import merge_decoder
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.spec import Backbone

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone
    from latentmas.backbones.devices.split import Split

__all__ = ["fuse", "may_merge"]

TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-4,
    torch.bfloat16: 0.05,
    torch.float16: 0.01,
}
"""Maximum relative difference from the modules' states. In float64 it is not smaller because norms
and rotations are rounded to fp32 there, too."""
LENGTH, PADDING = 7, 2


def may_merge(spec: Backbone, split: Split | None) -> bool:
    """Whether the weights of a backbone may be stored in another layout.

    A model that was handed over belongs to its owner, who may save it; hooks of accelerate and of
    transformers know weights on several devices by their storage.
    """
    return spec.given is None and split is None


@torch.no_grad()
def fuse(backbone: LoadedBackbone) -> FusedDecoder | str:
    """Build the fused step of a backbone and compare it with its modules.

    Returns:
        The fused decoder, or the reason why steps run through the modules.
    """
    decoder: Any = backbone.family.decoder(backbone.model)
    layout = layout_of(decoder)
    if layout is None:
        return f"{type(decoder).__name__} is not one of the decoders with a fused step"
    if backbone.masks is None or not KVCache(backbone).can_merge():
        return "its layers or its attention need their own masks or memory"
    if not may_merge(backbone.planned.spec, backbone.split):
        return "its weights are left where they are: it was handed over, or is on several devices"
    kinds = backbone.layer_kinds()
    try:
        merge_decoder(list(decoder.layers)[: len(kinds)])
        fused = FusedDecoder(decoder, layout, kinds)
        difference = _difference(backbone, fused)
    except Unfusable as reason:
        return str(reason)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return f"a fused step fails on it: {(str(error) or repr(error)).splitlines()[0]}"
    if not difference < TOLERANCE.get(backbone.dtype, 0.0):
        return f"a fused step changes its states by {difference:.2g}"
    return fused


def _difference(backbone: LoadedBackbone, fused: FusedDecoder) -> float:
    """Largest difference between both ways in two steps after a padded prompt, relative."""
    ids = torch.arange(4, 4 + 2 * LENGTH).view(2, LENGTH) % backbone.planned.info.vocab_size
    x, cut = backbone.embed(ids), LENGTH - 2
    mask = torch.ones(2, LENGTH, dtype=torch.long, device=x.device)
    mask[1, :PADDING] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    worst = torch.zeros((), device=x.device)
    states = [KVCache(backbone), KVCache(backbone)]
    for state in states:
        backbone.run_modules(x[:, :cut], positions[:, :cut], mask[:, :cut], state)
    for i in range(cut, LENGTH):
        new, seen = slice(i, i + 1), mask[:, : i + 1]
        wanted = backbone.run_modules(x[:, new], positions[:, new], seen, states[0])[:, 0]
        shown = backbone.mask_for(seen, 1, states[1])
        found = fused.step(x[:, i], positions[:, new], shown, states[1].cache)
        apart = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)
        worst = torch.maximum(worst, apart.nan_to_num(nan=float("inf")))
    return float(worst)

"""Whether a loaded backbone's decoder may be fused: a few tokens decide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.backbones.fused.decoder import FusedDecoder, Unfusable
from latentmas.backbones.fused.layouts import layout_of
from latentmas.backbones.fused.merging import merge_decoder
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.spec import Backbone

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone
    from latentmas.backbones.devices.split import Split

__all__ = ["fault_of", "fuse", "may_merge"]

Run = Callable[[Tensor, Tensor, Any], Tensor]
"""Of input embeddings (B, T, D), position ids and the mask, it makes the states after the final
norm at the last position, (B, D)."""
Begin = Callable[[KVCache], Run]
"""Given a state, it returns what goes on from there."""

TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-4,
    torch.bfloat16: 0.1,
    torch.float16: 0.05,
}
"""Maximum difference from the modules' states, relative to their norm. In float64 it is not smaller
because norms and rotations are rounded to fp32 there, too. In bfloat16, states of SmolLM2's modules
differ from float32 by 0.014 to 0.026 and those of fused steps by 0.012 to 0.022, but some inputs
are chaotic (2.3 and 0.5): the median of several states is judged there, and the largest
elsewhere. A decoder with a quirk is off in all of them."""
ROWS, FIRST, PROMPT, LENGTH, PADDING = 3, 3, 5, 8, 2


def may_merge(spec: Backbone, split: Split | None) -> bool:
    """Whether the weights of a backbone may be stored in another layout.

    A model that was handed over belongs to its owner, who may save it; hooks of accelerate and of
    transformers know weights on several devices by their storage.
    """
    return spec.given is None and split is None


@torch.no_grad()
def fuse(backbone: LoadedBackbone) -> FusedDecoder | str:
    """Build the fused decoder of a backbone and compare it with its modules.

    Returns:
        The fused decoder, or the reason why the modules run.
    """
    decoder: Any = backbone.family.decoder(backbone.model)
    layout = layout_of(decoder)
    if layout is None:
        return f"{type(decoder).__name__} is not one of the decoders that can be fused"
    if backbone.masks is None or not KVCache(backbone).can_merge():
        return "its layers or its attention need their own masks or memory"
    if not may_merge(backbone.planned.spec, backbone.split):
        return "its weights are left where they are: it was handed over, or is on several devices"
    kinds = backbone.layer_kinds()
    try:
        merge_decoder(list(decoder.layers)[: len(kinds)])
        fused = FusedDecoder(decoder, layout, kinds)
        run_on: Begin = lambda state: partial(fused.run, cache=state.cache)  # noqa: E731
        fault = fault_of(backbone, run_on, run_on)
    except Unfusable as reason:
        return str(reason)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return f"the fused decoder fails on it: {(str(error) or repr(error)).splitlines()[0]}"
    return fused if fault is None else f"the fused decoder {fault}"


@torch.no_grad()
def fault_of(
    backbone: LoadedBackbone,
    begin: Begin,
    read: Begin | None = None,
) -> str | None:
    """Compare two parts of a padded prompt and some steps with those of the modules.

    Args:
        backbone: The backbone.
        begin: For single positions after the prompt.
        read: For parts of the prompt. None: the modules read it.

    Returns:
        What is wrong with the states; None if they are right.
    """
    ids = torch.arange(4, 4 + ROWS * LENGTH).view(ROWS, LENGTH) % backbone.planned.info.vocab_size
    x = backbone.embed(ids)
    x = (x + x.roll(1, dims=1)) / 2  # latent steps are not embeddings of tokens either
    mask = torch.ones(ROWS, LENGTH, dtype=torch.long, device=x.device)
    mask[1, :PADDING] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    (plain, other), apart = (KVCache(backbone), KVCache(backbone)), list[Tensor]()

    def compare(start: int, end: int, run: Run | None) -> None:
        """Take some columns in twice."""
        new, shown = slice(start, end), mask[:, :end]
        given = x[:, new], positions[:, new]
        wanted = backbone.run_modules(*given, shown, plain)[:, -1].float()
        if run is None:
            backbone.run_modules(*given, shown, other)
        else:
            found = run(*given, backbone.mask_for(shown, end - start, other)).float()
            apart.append((found - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp_min(1e-6))

    for start, end in ((0, FIRST), (FIRST, PROMPT)):
        compare(start, end, None if read is None else read(other))
    step = begin(other)
    for i in range(PROMPT, LENGTH):
        compare(i, i + 1, step)
    all_apart = torch.cat(apart).nan_to_num(nan=float("inf"))
    half = backbone.dtype in (torch.bfloat16, torch.float16)
    difference = float(all_apart.median() if half else all_apart.max())
    if difference < TOLERANCE.get(backbone.dtype, 0.0):
        return None
    return f"changes its states by {difference:.2g}"

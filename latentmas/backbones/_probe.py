"""Checks that a loaded model must pass before it is used.

A model may load and run and still be unsuitable: its head may have a quirk, its positions may be
counted from the left edge of a padded batch, or its cache may be managed only by `generate`. A few
tokens reveal that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentmas.errors import WeightsError

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone
    from latentmas.backbones.kv_cache.state import KVCache
    from latentmas.backbones.kv_cache.static import StaticKVCache

__all__ = ["probe", "probe_static"]

TOLERANCE = 0.05
"""Maximum relative difference between results that should agree; bf16 gives about 0.01."""
SPLIT_TOLERANCE = 0.2
"""The same for half precision over several processes: the order in which the parts of a sum are
added depends on its length. SmolLM2 in bf16 over three processes differs by 0.07, in fp32 by 1e-6.
"""
LENGTH, PADDING = 6, 3


@torch.no_grad()
def probe(backbone: LoadedBackbone, new_state: Callable[[], KVCache]) -> None:
    """Compare width, logits, padding and cached states on a few tokens.

    Raises:
        WeightsError: The model is unsuitable; the message names the difference and its consequence.
    """
    name = f"backbone {backbone.planned.spec.source!r} ({backbone.planned.info.model_type})"
    ids = torch.arange(4, 4 + LENGTH)[None] % backbone.planned.info.vocab_size
    try:
        rows = backbone.embed(ids)
        _check_width(backbone, rows, name)
        _check_ids(backbone, ids, rows, name)
        # Latent steps feed vectors that are not token embeddings. Means of neighbours are such
        # vectors: a model that looks up their ids in the embedding table (Gemma 4) fails on them.
        x = (rows + rows.roll(1, dims=1)) / 2
        positions = torch.arange(LENGTH, device=x.device)[None]
        whole = backbone.step(x, positions, torch.ones_like(positions))
        _check_logits(backbone, x, positions, whole, name)
        _check_padding(backbone, x, whole, name)
        _choose_masks(backbone, x, new_state)
        _check_memory(backbone, x, positions, whole, new_state(), name)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise WeightsError(
            f"{name} cannot serve as a backbone in {str(backbone.dtype).removeprefix('torch.')}: "
            f"it fails on input embeddings: {reason}"
        ) from error


def _check_width(backbone: LoadedBackbone, x: Tensor, name: str) -> None:
    wanted = backbone.planned.info.hidden_size
    if x.shape[-1] != wanted:
        raise WeightsError(f"{name} has width {x.shape[-1]}; its plan says {wanted}; compile again")


def _check_ids(backbone: LoadedBackbone, ids: Tensor, x: Tensor, name: str) -> None:
    """Check that ids and their embeddings give equal logits: a model may also use the ids."""
    by_ids = backbone.model(input_ids=ids.to(x.device), use_cache=False).logits
    by_rows = backbone.model(inputs_embeds=x, use_cache=False).logits
    if not _close(by_rows, by_ids):
        raise WeightsError(
            f"{name} reads token ids beside its input embeddings: given its own embeddings alone, "
            f"it computes different logits (relative difference {_distance(by_rows, by_ids):.3g}); "
            "latent steps have no token ids, so it cannot serve as a backbone; choose another model"
        )


def _check_logits(
    backbone: LoadedBackbone, x: Tensor, positions: Tensor, whole: Tensor, name: str
) -> None:
    ours = backbone.logits(whole)
    model = backbone.model(
        inputs_embeds=x,
        position_ids=positions,
        attention_mask=torch.ones_like(positions),
        use_cache=False,
    )
    if not _close(ours, model.logits):
        raise WeightsError(
            f"{name}: family {type(backbone.family).__name__!r} gives different logits "
            f"from the model (relative difference {_distance(ours, model.logits):.3g}); this model "
            "needs its own family"
        )


def _check_padding(backbone: LoadedBackbone, x: Tensor, whole: Tensor, name: str) -> None:
    pad = backbone.embed(torch.full((1, PADDING), backbone.pad_id))
    mask = torch.tensor([[0] * PADDING + [1] * LENGTH], device=x.device)
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    padded = backbone.step(torch.cat([pad, x], dim=1), positions, mask)[:, PADDING:]
    if not _close(padded, whole, _tolerance(backbone)):
        attention = getattr(backbone.model.config, "_attn_implementation", "unknown")
        raise WeightsError(
            f"{name} gives different states when its prompt is padded on the left "
            f"(relative difference {_distance(padded, whole):.3g}): a batch would not equal its "
            f"rows; dtype {str(backbone.dtype).removeprefix('torch.')} with attention "
            f"{attention!r} is the cause, or the model; try another of either"
        )


def _choose_masks(backbone: LoadedBackbone, x: Tensor, new_state: Callable[[], KVCache]) -> None:
    """Let the model build its masks if ours give different states or do not work."""
    ours, backbone_masks = None, backbone.masks
    mask = torch.ones_like(x[..., 0], dtype=torch.long)
    mask[:, :PADDING] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)

    def read() -> Tensor:
        state, cut = new_state(), LENGTH - 1
        backbone.step(x[:, :cut], positions[:, :cut], mask[:, :cut], state)
        return backbone.step(x[:, cut:], positions[:, cut:], mask, state)

    with suppress(RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        ours = read()  # if this fails, only the model's own masks can be used
    backbone.masks = None
    wanted = read()
    if ours is not None and _close(ours, wanted, _tolerance(backbone)):
        backbone.masks = backbone_masks


@torch.no_grad()
def probe_static(
    backbone: LoadedBackbone, new_state: Callable[[int, int], StaticKVCache]
) -> str | None:
    """Reason why a model cannot run with a static state; None if a few tokens agree."""
    ids = torch.arange(4, 4 + LENGTH)[None] % backbone.planned.info.vocab_size
    x, cut = backbone.embed(ids), LENGTH - 1
    positions = torch.arange(LENGTH, device=x.device)[None]
    mask = torch.ones_like(positions)
    try:
        state = new_state(1, LENGTH + 2)
        backbone.step(x[:, :cut], positions[:, :cut], mask[:, :cut], state)
        state.advance(cut)
        state.place(mask, positions[:, cut])
        found = backbone.step(x[:, cut:], positions[:, cut:], state.mask_BC, state)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return f"it fails on buffers of fixed size: {(str(error) or repr(error)).splitlines()[0]}"
    wanted = backbone.step(x, positions, mask)[:, cut:]
    if _close(found, wanted):
        return None
    return f"buffers of fixed size change its states by {_distance(found, wanted):.2g}"


def _check_memory(
    backbone: LoadedBackbone,
    x: Tensor,
    positions: Tensor,
    whole: Tensor,
    state: KVCache,
    name: str,
) -> None:
    cut, mask = LENGTH // 2, torch.ones_like(positions)
    pieces = [backbone.step(x[:, :cut], positions[:, :cut], mask[:, :cut], state)]
    for i in range(cut, LENGTH):
        one = slice(i, i + 1)
        pieces.append(backbone.step(x[:, one], positions[:, one], mask[:, : i + 1], state))
    joined = torch.cat(pieces, dim=1)
    if not _close(joined, whole, _tolerance(backbone)):
        raise WeightsError(
            f"{name} gives different states when the prompt is read in pieces (relative "
            f"difference {_distance(joined, whole):.3g}); it needs a family with its own cache"
        )


def _tolerance(backbone: LoadedBackbone) -> float:
    halves = backbone.dtype in (torch.bfloat16, torch.float16)
    return SPLIT_TOLERANCE if backbone.split is not None and halves else TOLERANCE


def _close(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> bool:
    return found.shape == wanted.shape and _distance(found, wanted) < tolerance


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest value; NaN counts as a large one."""
    difference = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)
    return float(difference.nan_to_num(nan=float("inf")))

"""The tokens that all prompts of a batch begin with, read once and kept over training steps.

What a frozen backbone makes of a chat template's head, or of an instruction before the first slot,
is the same in each row and at each step. No link precedes it, so no gradient flows there.

Shapes: `B` batch, `T` prompt positions, `C` tokens of the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from latentmas.backbones import KVCache, LoadedBackbone, RowSelection
from latentmas.engine.packing import Packed
from latentmas.engine.prefix import MESSAGE, WORTHWHILE

__all__ = ["beginning_of", "beginnings_kept", "first_messages", "state_after"]

MOST = 8
"""Beginnings kept for each backbone; the one that was not used for longest goes."""
KEY = "beginnings"

_KEPT: ContextVar[bool] = ContextVar("kept", default=False)


@contextmanager
def beginnings_kept(kept: bool = True) -> Iterator[None]:
    """Within it, beginnings are kept: in training, whose numbers need not be those of one run."""
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def beginning_of(backbone: LoadedBackbone, prompt: Packed) -> tuple[int, ...]:
    """The ids that all rows of a batch begin with, before any message.

    They follow from the batch alone, so that a training that resumes meets the same ones.

    Args:
        backbone: reads the prompts.
        prompt: B prompts, padded on the left.

    Returns:
        At least 8 ids, and fewer than the shortest row has; none outside of `beginnings_kept`,
        where the backbone learns, or where its states cannot be put together.
    """
    if not _KEPT.get() or prompt.ids_BT is None or not _usable(backbone):
        return ()
    rows, length = prompt.ids_BT, prompt.ids_BT.shape[1]
    shortest = min(prompt.lengths)
    starts_B1 = torch.tensor([[length - own] for own in prompt.lengths])
    head_BC = rows.gather(1, starts_B1 + torch.arange(shortest - 1))
    same_C = ((head_BC == head_BC[:1]) & (head_BC != MESSAGE)).all(dim=0)
    count = int(same_C.long().cumprod(dim=0).sum())
    return tuple(head_BC[0, :count].tolist()) if count >= WORTHWHILE else ()


def first_messages(prompt: Packed) -> int:
    """Positions of each row, at least, that come before its first message or its last position."""
    assert prompt.ids_BT is not None
    length = prompt.ids_BT.shape[1]
    before = [own - 1 for own in prompt.lengths]
    for row, columns in enumerate((prompt.ids_BT == MESSAGE).long()):
        if columns.any():
            before[row] = min(before[row], int(columns.argmax()) - length + prompt.lengths[row])
    return min(before)


def state_after(backbone: LoadedBackbone, ids: tuple[int, ...], rows: int) -> KVCache:
    """A new state of B rows that have all read the same tokens, without padding.

    It is made with gradients enabled as the caller has them, and reported as new (`ON_NEW`).

    Args:
        backbone: reads them, the first time.
        ids: C tokens.
        rows: B.
    """
    kept: dict[Any, KVCache] = backbone.workspace.setdefault(KEY, {})
    key = ids, backbone.dtype, _version(backbone)
    one = kept.pop(key, None) or _read(backbone, ids)
    kept[key] = one
    while len(kept) > MOST:
        del kept[next(iter(kept))]
    return one.assemble([RowSelection(one, [0] * rows)])


@torch.no_grad()
def _read(backbone: LoadedBackbone, ids: tuple[int, ...]) -> KVCache:
    state = KVCache(backbone)
    x_1CD = backbone.embed(torch.tensor([ids]))
    places_1C = torch.arange(len(ids), device=x_1CD.device)[None]
    backbone.step(x_1CD, places_1C, torch.ones_like(places_1C), state, padded=False)
    return state


def _usable(backbone: LoadedBackbone) -> bool:
    """Whether the backbone is frozen, and of layers whose states can be put together."""
    if backbone.learns:
        return False
    if (KEY, "joins") not in backbone.workspace:
        backbone.workspace[KEY, "joins"] = KVCache(backbone).can_merge()
    return bool(backbone.workspace[KEY, "joins"])


def _version(backbone: LoadedBackbone) -> int:
    """Changes when a weight is written to."""
    return sum(weight._version for weight in backbone.model.parameters())

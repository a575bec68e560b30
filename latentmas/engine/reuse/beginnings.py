"""The tokens that all prompts of a batch begin with, read once and kept.

What a backbone makes of a chat template's head, of an instruction before the first slot or of
solved examples is the same in each row, in each batch and at each step of a training. No link
precedes it, so no gradient flows there. What is shared follows from the batch alone, never from
what ran before.

Shapes: `B` batch, `T` prompt positions, `C` tokens of the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import numpy as np
import torch

from latentmas.backbones import KVCache, LoadedBackbone, RowSelection
from latentmas.engine.packing import Packed
from latentmas.engine.reuse.prefix import MESSAGE, WORTHWHILE

__all__ = ["beginning_first", "beginning_of", "beginnings_kept", "first_messages", "state_after"]

MOST, MOST_TOKENS = 8, 4096
"""Beginnings kept for each backbone, and tokens of all of them; the one that was not used for
longest goes."""
SAVED = 1024
"""Positions that rows must spare by reading a beginning together in a run."""
LONG_HEAD = 128
"""Tokens of a template's head that are worth keeping in a run, for one row too."""
KEY = "beginnings"
LOCK = Lock()
"""Runs may go side by side in threads."""

_KEPT: ContextVar[bool] = ContextVar("kept", default=False)


@contextmanager
def beginnings_kept(kept: bool = True) -> Iterator[None]:
    """Within it, short beginnings are kept too, since a training reads them at every step."""
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
        At least 8 ids, and fewer than the shortest row has; none where the backbone learns or its
        states cannot be put together. Outside of `beginnings_kept`: none unless they spare many
        positions or are a long head of the template.
    """
    if prompt.ids_BT is None or not _usable(backbone):
        return ()
    ids = _common_ids(prompt)
    if not _KEPT.get():
        ids = _worth_a_run(ids, len(prompt.lengths), prompt.head)
    return tuple(ids) if len(ids) >= WORTHWHILE else ()


def _common_ids(prompt: Packed) -> list[int]:
    """C ids that all rows begin with before a message or their last position; on the host."""
    assert prompt.ids_BT is not None
    rows, length = prompt.ids_BT.numpy(), prompt.ids_BT.shape[1]
    shortest = min(prompt.lengths) - 1
    starts = [length - own for own in prompt.lengths]
    heads = np.stack([row[at : at + shortest] for row, at in zip(rows, starts, strict=True)])
    ends = np.flatnonzero((heads != heads[0]).any(axis=0) | (heads[0] == MESSAGE))
    return list(map(int, heads[0, : ends[0] if len(ends) else shortest]))


def _worth_a_run(ids: list[int], rows: int, head: int) -> list[int]:
    """The part of a common beginning that a run reads once: what rows spare, or a head to keep."""
    head = head if head >= LONG_HEAD else 0
    spared = (rows - 1) * (len(ids) - head)
    return ids if spared >= SAVED else ids[:head]


def first_messages(prompt: Packed) -> int:
    """Positions of each row, at least, that come before its first message or its last position."""
    assert prompt.ids_BT is not None
    length = prompt.ids_BT.shape[1]
    before = [own - 1 for own in prompt.lengths]
    for row, columns in enumerate((prompt.ids_BT == MESSAGE).long()):
        if columns.any():
            before[row] = min(before[row], int(columns.argmax()) - length + prompt.lengths[row])
    return min(before)


def beginning_first(prompt: Packed, count: int) -> Packed:
    """The prompt with each row's first C tokens in its first columns, and padding after them.

    Embeddings of the first C columns are left as they are; nobody reads them.
    """
    length, device = prompt.x_BTD.shape[1], prompt.mask_BT.device
    begins_B1 = torch.tensor([[length - own + count] for own in prompt.lengths], device=device)
    mask_BT = (torch.arange(length, device=device) >= begins_B1).long()
    mask_BT[:, :count] = 1
    return prompt._replace(mask_BT=mask_BT)


def state_after(backbone: LoadedBackbone, ids: tuple[int, ...], rows: int) -> KVCache:
    """A new state of B rows that have all read the same tokens, without padding.

    It is made with gradients enabled as the caller has them, and reported as new (`ON_NEW`).

    Args:
        backbone: reads them, the first time.
        ids: C tokens.
        rows: B.
    """
    key = ids, backbone.dtype, _version(backbone)
    with LOCK:
        found = backbone.workspace.get(KEY, {}).get(key)
    one: KVCache = found or _read(backbone, ids)
    with LOCK:
        _keep(backbone.workspace.setdefault(KEY, {}), key, one)
    return one.assemble([RowSelection(one, [0] * rows)])


def _keep(kept: dict[Any, KVCache], key: Any, one: KVCache) -> None:
    """Make a state the one that was used last, and let go of those beyond the limits."""
    kept.pop(key, None)
    kept[key] = one
    while len(kept) > MOST or (len(kept) > 1 and sum(len(own[0]) for own in kept) > MOST_TOKENS):
        del kept[next(iter(kept))]


@torch.no_grad()
def _read(backbone: LoadedBackbone, ids: tuple[int, ...]) -> KVCache:
    state = KVCache(backbone)
    x_1CD = backbone.embed(torch.tensor([ids]))
    places_1C = torch.arange(len(ids), device=x_1CD.device)[None]
    backbone.step(x_1CD, places_1C, torch.ones_like(places_1C), state, padded=False, last=True)
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

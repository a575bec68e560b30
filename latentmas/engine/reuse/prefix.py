"""The part of a prompt that an agent reads again in its next turn, read once.

Shapes: `B` batch, `T` prompt positions, `C` shared columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["MESSAGE", "PADDING", "Prefix", "merged_prefix", "shared_columns"]

MESSAGE, PADDING = -1, -2
"""What stands in a prompt's ids where no token does."""
WORTHWHILE = 8
"""Fewer shared columns are not kept."""


@dataclass
class Prefix:
    """Leading columns of a batch of prompts, and a backbone's state after them."""

    ids_BC: Tensor
    """Their ids, on the CPU; they tell whether another prompt begins alike."""
    snapshot: list[dict[str, Any]] | None = None
    """Snapshot of a state; None until a session has read the columns."""
    beginning: int = 0
    """Leading columns of the snapshot that are the same tokens in each row; padding comes after."""

    @property
    def columns(self) -> int:
        """C."""
        return self.ids_BC.shape[1]

    def begins(self, ids_BT: Tensor | None) -> bool:
        """Whether a batch of prompts begins with these columns."""
        if ids_BT is None or ids_BT.shape[0] != self.ids_BC.shape[0]:
            return False
        return ids_BT.shape[1] > self.columns and bool(ids_BT[:, : self.columns].equal(self.ids_BC))


def shared_columns(now_BT: Tensor, next_BT: Tensor) -> int:
    """Leading columns that two batches of prompts have in common; 0 when they are not worth it.

    Only whole columns count, and every row must have begun in them: a cut leaves all rows a tail of
    one length, so that no family sees padding in the middle.
    """
    width = min(now_BT.shape[1], next_BT.shape[1]) - 1
    same_T = (now_BT[:, :width] == next_BT[:, :width]).all(dim=0)
    same_T &= (now_BT[:, :width] != MESSAGE).all(dim=0)
    return _worthwhile(now_BT, int(same_T.long().cumprod(dim=0).sum()))


def merged_prefix(
    ids_BT: Tensor | None, own: Sequence[tuple[int, Prefix | None]], left: Prefix | None
) -> Prefix | None:
    """The prefix of several agents' prompts that run as one batch, padded to the longest.

    Args:
        ids_BT: Token ids of the batch.
        own: For each agent, the columns of its prompts and the prefix that it would have alone.
        left: Prefix that an earlier turn of the same agents has left.

    Returns:
        `left` where the batch begins with it, else a new one; None when nothing is shared.
    """
    if ids_BT is None:
        return None
    if left is not None and left.begins(ids_BT):
        return left
    ends = [
        ids_BT.shape[1] - columns + prefix.columns for columns, prefix in own if prefix is not None
    ]
    count = _worthwhile(ids_BT, min(ends)) if len(ends) == len(own) else 0
    return Prefix(ids_BT[:, :count]) if count else None


def _worthwhile(ids_BT: Tensor, count: int) -> int:
    """So many leading columns; 0 when they are few, or a row begins after them."""
    begun = bool((ids_BT[:, :count] >= 0).any(dim=1).all()) if count else False
    return count if begun and count >= WORTHWHILE else 0

"""Several messages, or texts, made into the one that fills a slot.

Shapes: `B` batch, `K` rows of a message, `D` width of the receiver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["combine_messages", "combine_texts"]


def combine_messages(how: Literal["concat", "mean"], messages: Sequence[Tensor]) -> Tensor:
    """One message of all, (B, K, D).

    Rows of zeros stand for no row: a link may send fewer than K. A mean leaves them out.

    Args:
        how: `"concat"`: the rows of one message after those of the one before; K is their sum.
            `"mean"`: row by row; K is that of the longest.
        messages: each (B, K, D); K may differ.
    """
    if how == "concat":
        return torch.cat(list(messages), dim=1)
    longest = max(message.shape[1] for message in messages)
    padded_NBKD = torch.stack([F.pad(m, (0, 0, 0, longest - m.shape[1])) for m in messages])
    count_BK1 = (padded_NBKD != 0).any(dim=-1, keepdim=True).sum(dim=0)
    return padded_NBKD.sum(dim=0) / count_BK1.clamp_min(1)


def combine_texts(texts: Sequence[Sequence[str]]) -> list[str]:
    """The texts of each row, a line each: what `"concat"` and `"mean"` are in a text twin.

    Args:
        texts: for each edge, B texts.
    """
    return ["\n".join(row) for row in zip(*texts, strict=True)]

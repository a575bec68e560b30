"""Draws from the likeliest tokens without a sort of the vocabulary.

A draw goes through the tokens from the likeliest to the least likely, those of equal scores in the
order of their ids, and takes the first at which the sum of probabilities exceeds a random number.
A few candidates nearly always decide it; the other rows sort all scores, without their ids.

Shapes: `B` batch, `V` vocabulary, `K` candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Filters", "draw"]

CANDIDATES = 512
"""Likeliest tokens of a row that are looked at first."""
CUT_MARGIN = 1e-4
"""How far rounding may shift the probabilities at which `top_p` and `min_p` cut: the sum over a whole
vocabulary in single precision is off by up to 3e-5."""
DRAW_MARGIN = 1e-5
"""How far it may shift a token's place among those that are kept."""


class Filters(NamedTuple):
    """Which tokens a draw is from."""

    top_k: int | None = None
    """At most this many of the likeliest tokens."""
    top_p: float = 1.0
    """The smallest set of tokens with at least this probability."""
    min_p: float | None = None
    """Tokens at least this likely, relative to the likeliest."""


def draw(scores_BV: Tensor, filters: Filters, uniform_B: Tensor) -> Tensor:
    """Draw a token for each row.

    A row's token depends on its own scores and its own random number alone.

    Args:
        scores_BV: Scores in single precision, already divided by the temperature.
        filters: Tokens to draw from.
        uniform_B: One number from [0, 1) for each row.

    Returns:
        Token ids, (B,).
    """
    uniform_B1 = uniform_B.to(scores_BV.device, torch.float32)[:, None]
    count = filters.top_k or CANDIDATES
    if scores_BV.shape[-1] <= 4 * count:
        return _draw_sorted(scores_BV, filters, uniform_B1)
    top_BK = _largest(scores_BV, count)
    if filters.top_k is not None:
        return _token_ids(scores_BV, top_BK, _ranks(top_BK, filters, uniform_B1))
    ranks_B1, decided_B = _decide(scores_BV, top_BK, filters, uniform_B1)
    ids_B = _token_ids(scores_BV, top_BK, ranks_B1)
    rest = (~decided_B).nonzero().squeeze(-1)
    if len(rest):
        ids_B[rest] = _draw_sorted(scores_BV[rest], filters, uniform_B1[rest])
    return ids_B


def _draw_sorted(scores_BV: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Draw with all scores in order."""
    sorted_BV = _largest(scores_BV, scores_BV.shape[-1])[:, : filters.top_k]
    return _token_ids(scores_BV, sorted_BV, _ranks(sorted_BV, filters, uniform_B1))


def _ranks(sorted_BK: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Places of the drawn tokens in the order of scores, where no token outside can be drawn."""
    probabilities = sorted_BK.softmax(dim=-1)
    outside = probabilities.cumsum(dim=-1) - probabilities >= filters.top_p
    if filters.min_p is not None:
        outside |= probabilities < filters.min_p * probabilities[:, :1]
    outside[:, 0] = False
    kept = probabilities.masked_fill(outside, 0.0)
    cumulative = (kept / kept.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    last = (~outside).sum(dim=-1, keepdim=True) - 1
    return (cumulative <= uniform_B1).sum(dim=-1, keepdim=True).minimum(last)


def _decide(
    scores_BV: Tensor, top_BK: Tensor, filters: Filters, uniform_B1: Tensor
) -> tuple[Tensor, Tensor]:
    """Places of the drawn tokens, and in which rows the candidates decide them.

    The tokens that are surely kept and those that may be kept bound the probability of all kept
    tokens, and so the sum that the random number stands for. A row is decided where both bounds,
    with a margin for rounding, lead to one token that is surely kept. In a row with a NaN or an
    infinite score no comparison holds, so it takes its first token, as a sort would.
    """
    log_total = scores_BV.logsumexp(dim=-1, keepdim=True)
    p_BK = (top_BK - log_total).exp().double()
    upto_BK = p_BK.cumsum(dim=-1)
    before_BK = upto_BK - p_BK
    surely_BK = before_BK < filters.top_p - CUT_MARGIN
    maybe_BK = before_BK < filters.top_p + CUT_MARGIN
    if filters.min_p is not None:
        floor_B1 = filters.min_p * p_BK[:, :1]
        surely_BK &= p_BK >= floor_B1 * (1 + CUT_MARGIN)
        maybe_BK &= p_BK >= floor_B1 * (1 - CUT_MARGIN)
    least = upto_BK.masked_fill(~surely_BK, 0.0).amax(dim=-1, keepdim=True)
    if filters.min_p is None:  # where all candidates are kept, the kept tokens reach `top_p`
        least = torch.where(surely_BK[:, -1:], filters.top_p - CUT_MARGIN, least)
    most = upto_BK.masked_fill(~maybe_BK, 0.0).amax(dim=-1, keepdim=True)
    beyond = (filters.top_p + CUT_MARGIN + p_BK[:, -1:]).clamp(max=1.0)
    most = torch.where(maybe_BK[:, -1:], beyond, most)
    low = (upto_BK <= uniform_B1 * least - DRAW_MARGIN).sum(dim=-1, keepdim=True)
    high = (upto_BK <= uniform_B1 * most + DRAW_MARGIN).sum(dim=-1, keepdim=True)
    last = surely_BK.sum(dim=-1, keepdim=True).sub(1).clamp(min=0)
    return low.minimum(last), ((low == high) & (low <= last)).squeeze(-1)


def _largest(scores_BV: Tensor, count: int) -> Tensor:
    """The largest scores of each row, in falling order; NaN comes first.

    On CPUs numpy is used, which sorts plain numbers in vector registers: 20 times as fast as a sort
    that carries positions along.
    """
    if scores_BV.device.type != "cpu":
        return scores_BV.topk(count, dim=-1).values
    rows, width = scores_BV.numpy(), scores_BV.shape[-1]
    if count < width:
        rows = np.partition(rows, width - count, axis=-1)[:, width - count :]
    return torch.from_numpy(np.sort(rows, axis=-1)).flip(-1)


def _token_ids(scores_BV: Tensor, sorted_BK: Tensor, ranks_B1: Tensor) -> Tensor:
    """Tokens at places in the order of scores; equal scores are ordered by their ids."""
    score_B1 = sorted_BK.gather(-1, ranks_B1)
    nth_B1 = ranks_B1 - (sorted_BK > score_B1).sum(dim=-1, keepdim=True)
    if scores_BV.device.type != "cpu":
        equal_BV = (scores_BV == score_B1) | (scores_BV.isnan() & score_B1.isnan())
        return (equal_BV & (equal_BV.cumsum(dim=-1) == nth_B1 + 1)).int().argmax(dim=-1)
    rows = zip(scores_BV.numpy(), score_B1.tolist(), nth_B1.tolist(), strict=True)
    return torch.tensor([_nth(row, np.float32(score), nth) for row, [score], [nth] in rows])


def _nth(row: np.ndarray, score: np.float32, nth: int) -> int:
    """Where a score stands in a row for the nth time, counted from 0."""
    found = np.flatnonzero(np.isnan(row) if np.isnan(score) else row == score)
    return int(found[nth])

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
"""How far rounding may shift the probabilities at which `top_p` and `min_p` cut: the sum over a
large vocabulary in single precision is off by up to 3e-5."""
DRAW_MARGIN = 1e-5
"""How far it may shift a token's place among those that are kept."""

AT_ONCE = 2**18
"""Scores that a CPU works on at once, so that they stay in its cache."""


class Filters(NamedTuple):
    """Which tokens a draw is from."""

    top_k: int | None = None
    """At most this many of the likeliest tokens."""
    top_p: float = 1.0
    """The smallest set of tokens with at least this probability."""
    min_p: float | None = None
    """Tokens at least this likely, relative to the likeliest."""


def draw(logits_BV: Tensor, temperature: float, filters: Filters, uniform_B: Tensor) -> Tensor:
    """Draw a token for each row.

    A row's token depends on its own scores and its own random number alone.

    Args:
        logits_BV: Scores.
        temperature: Sampling temperature.
        filters: Tokens to draw from.
        uniform_B: One number from [0, 1) for each row.

    Returns:
        Token ids, (B,).
    """
    at_once = AT_ONCE // logits_BV.shape[-1] if logits_BV.device.type == "cpu" else len(logits_BV)
    uniform_B1 = uniform_B.to(logits_BV.device, torch.float32)[:, None]
    parts = zip(logits_BV.split(max(1, at_once)), uniform_B1.split(max(1, at_once)), strict=True)
    return torch.cat([_draw(own.float() / temperature, filters, u) for own, u in parts])


def _draw(scores_BV: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Draw from candidates, and from all tokens where that leaves a row undecided."""
    count = filters.top_k or CANDIDATES
    if scores_BV.shape[-1] <= 4 * count:
        return _draw_sorted(scores_BV, filters, uniform_B1)
    top_BK = _largest(scores_BV, count)
    if filters.top_k is not None:
        return _token_ids(scores_BV, top_BK, _ranks(top_BK, filters, uniform_B1))
    ranks_B1, decided_B = _decide(scores_BV, top_BK, filters, uniform_B1)
    rest = (~decided_B).nonzero().squeeze(-1)
    if len(rest) == len(scores_BV):
        return _draw_sorted(scores_BV, filters, uniform_B1)
    ids_B = _token_ids(scores_BV, top_BK, ranks_B1)
    if len(rest):
        ids_B[rest] = _draw_sorted(scores_BV[rest], filters, uniform_B1[rest])
    return ids_B


def _draw_sorted(scores_BV: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Draw with all scores in order."""
    sorted_BV = _largest(scores_BV, scores_BV.shape[-1])[:, : filters.top_k]
    return _token_ids(scores_BV, sorted_BV, _ranks(sorted_BV, filters, uniform_B1))


def _ranks(sorted_BK: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Places of the drawn tokens in the order of scores, where no token outside can be drawn."""
    p_BK = sorted_BK.softmax(dim=-1)
    outside_BK = p_BK.cumsum(dim=-1).sub_(p_BK) >= filters.top_p
    if filters.min_p is not None:
        outside_BK |= p_BK < filters.min_p * p_BK[:, :1]
    outside_BK[:, 0] = False
    p_BK.masked_fill_(outside_BK, 0.0)
    upto_BK = p_BK.div_(p_BK.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    ranks_B1 = torch.searchsorted(upto_BK, uniform_B1, right=True)
    last_B1 = (~outside_BK).sum(dim=-1, keepdim=True) - 1
    # A search in a row of NaN may end anywhere; a comparison with it would never hold.
    return ranks_B1.minimum(last_B1).masked_fill(upto_BK[:, :1].isnan(), 0)


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
    if scores_BV.device.type == "cpu":
        rows = zip(scores_BV.numpy(), sorted_BK.numpy(), ranks_B1.tolist(), strict=True)
        return torch.tensor([_token_id(scores, ordered, rank) for scores, ordered, [rank] in rows])
    score_B1 = sorted_BK.gather(-1, ranks_B1)
    nth_B1 = ranks_B1 - (sorted_BK > score_B1).sum(dim=-1, keepdim=True)
    equal_BV = (scores_BV == score_B1) | (scores_BV.isnan() & score_B1.isnan())
    return (equal_BV & (equal_BV.cumsum(dim=-1) == nth_B1 + 1)).int().argmax(dim=-1)


def _token_id(scores: np.ndarray, ordered: np.ndarray, rank: int) -> int:
    """The token at a place of one row."""
    score = ordered[rank]
    nth = np.count_nonzero(ordered[:rank] == score)
    equal = np.flatnonzero(np.isnan(scores) if np.isnan(score) else scores == score)
    return int(equal[nth])

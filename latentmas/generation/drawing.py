"""Draws from the likeliest tokens without a sort of the vocabulary.

A draw goes through the tokens from the likeliest to the least likely, those of equal scores in the
order of their ids, and takes the first at which the sum of probabilities exceeds a random number.
A few candidates nearly always decide it; the other rows sort all scores, without their ids. With
`top_k`, candidates always decide it.

Sums are of whole numbers, so that they are the same in whichever order they are added: on a device,
the order depends on how many rows and candidates there are.

Shapes: `B` batch, `V` vocabulary, `K` candidates, `S` numbers of a row.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentmas.engine import Chooser

__all__ = ["CANDIDATES", "Filters", "TopCandidates", "draw"]

CANDIDATES = 512
"""Likeliest tokens of a row that are looked at first; the largest `top_k` of a captured draw."""
LEAST_CANDIDATES = 64
"""Candidates of a captured draw, at least."""
CUT_MARGIN = 1e-4
"""How far rounding may shift the probabilities at which `top_p` and `min_p` cut: the sum over a
large vocabulary in single precision is off by up to 3e-5."""
DRAW_MARGIN = 1e-5
"""How far it may shift a token's place among those that are kept."""

LIKELIEST = 2**40
"""Weight of the likeliest token; weights of all tokens are rounded to whole numbers."""

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
    # CUDA divides by a number of the host otherwise than by a tensor, which a captured draw has.
    divisor = torch.full((), temperature, dtype=torch.float32, device=logits_BV.device)
    return torch.cat([_draw(own.float() / divisor, filters, u) for own, u in parts])


def _draw(scores_BV: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Draw from candidates, and from all tokens where that leaves a row undecided."""
    count = filters.top_k or CANDIDATES
    if scores_BV.shape[-1] <= 4 * count:
        return _draw_sorted(scores_BV, filters, uniform_B1)
    top_BK = _largest(scores_BV, count)
    if filters.top_k is not None:
        return _token_ids(scores_BV, top_BK, _filtered_ranks(top_BK, filters, uniform_B1))
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
    return _token_ids(scores_BV, sorted_BV, _filtered_ranks(sorted_BV, filters, uniform_B1))


def _filtered_ranks(sorted_BK: Tensor, filters: Filters, uniform_B1: Tensor) -> Tensor:
    """Places of the drawn tokens in the order of scores, where no token outside can be drawn."""
    return _ranks(_weights(sorted_BK), filters.top_p, filters.min_p or 0.0, uniform_B1.double())


def _weights(sorted_BK: Tensor) -> Tensor:
    """Probabilities relative to the likeliest token, in units of which it has `LIKELIEST`.

    In a row with a NaN or infinite scores all weight is on the first token.
    """
    p_BK = (sorted_BK.double() - sorted_BK[:, :1]).exp_()
    weights_BK = p_BK.mul_(LIKELIEST).round_().nan_to_num_(nan=0.0).long()
    weights_BK[:, 0].fill_(LIKELIEST)
    return weights_BK


def _ranks(
    weights_BK: Tensor, top_p: float | Tensor, min_p: float | Tensor, uniform_B1: Tensor
) -> Tensor:
    """Places of the drawn tokens in the order of weights."""
    upto_BK = weights_BK.cumsum(dim=-1)
    most_B1 = (upto_BK[:, -1:].double() * top_p).ceil().long()
    least_B1 = (weights_BK[:, :1].double() * min_p).ceil().long()
    outside_BK = (upto_BK - weights_BK >= most_B1).logical_or_(weights_BK < least_B1)
    outside_BK[:, 0].fill_(False)
    upto_BK = weights_BK.masked_fill(outside_BK, 0).cumsum(dim=-1)
    drawn_B1 = (upto_BK[:, -1:].double() * uniform_B1).floor().long()
    return torch.searchsorted(upto_BK, drawn_B1, right=True)


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
    return _token_ids_on_device(scores_BV, sorted_BK, ranks_B1)


def _token_ids_on_device(scores_BV: Tensor, sorted_BK: Tensor, ranks_B1: Tensor) -> Tensor:
    """The same without a look at any value by the host."""
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


@dataclass(frozen=True)
class TopCandidates(Chooser):
    """Draws as `draw` does with a `top_k`, within a captured step: the same tokens.

    Each row has its own temperature and filters, and its own random number.
    """

    count: int
    """Number of candidates; no row's `top_k` is larger."""
    reads = True

    @classmethod
    def of(cls, top_k: int) -> TopCandidates:
        """With few different numbers of candidates, so that few graphs serve all `top_k`."""
        return cls(max(LEAST_CANDIDATES, 1 << (top_k - 1).bit_length()))

    @property
    def key(self) -> Hashable:
        """The number of candidates, which is the only shape."""
        return "candidates", self.count

    @staticmethod
    def numbers(uniform: float, temperature: float, filters: Filters) -> list[float]:
        """What a row's choice reads.

        Args:
            uniform: Its random number from [0, 1).
            temperature: Sampling temperature.
            filters: Tokens to draw from, at most `top_k`.
        """
        assert filters.top_k is not None
        return [uniform, temperature, filters.top_k, filters.top_p, filters.min_p or 0.0]

    def choose(self, logits_BV: Tensor, choice_BS: Tensor | None) -> Tensor:
        """The drawn token of each row, (B,)."""
        assert choice_BS is not None
        uniform_B1, temperature_B1, top_k_B1, top_p_B1, min_p_B1 = choice_BS.split(1, dim=-1)
        scores_BV = logits_BV.float() / temperature_B1.float()
        top_BK = scores_BV.topk(min(self.count, scores_BV.shape[-1]), dim=-1).values
        places_K = torch.arange(top_BK.shape[-1], device=top_BK.device)
        weights_BK = _weights(top_BK).masked_fill(places_K >= top_k_B1.clamp(min=1), 0)
        ranks_B1 = _ranks(weights_BK, top_p_B1, min_p_B1, uniform_B1)
        return _token_ids_on_device(scores_BV, top_BK, ranks_B1)

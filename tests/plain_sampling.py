"""Sampling as plainly as it can be written: everything is sorted, histories are gone through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentmas.generation import Sampling


def plain_pick(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Tensor:
    """Draw a token for each row from all scores in order; equal scores are in the order of ids."""
    scores = logits_BV.float() / sampling.temperature
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        scores = scores[:, : sampling.top_k]
    weights = _weights(scores.double())
    before = weights.cumsum(dim=-1) - weights
    outside = before.double() >= weights.sum(dim=-1, keepdim=True).double() * sampling.top_p
    if sampling.min_p is not None:
        outside |= weights.double() < sampling.min_p * weights[:, :1].double()
    outside[:, 0] = False
    cumulative = weights.masked_fill(outside, 0).cumsum(dim=-1).double()
    chosen = cumulative <= uniform_B.double()[:, None] * cumulative[:, -1:]
    return order.gather(-1, chosen.sum(dim=-1, keepdim=True)).squeeze(-1)


def _weights(sorted_BK: Tensor) -> Tensor:
    """Probabilities as whole numbers, 2 ** 40 for the likeliest token."""
    weights = ((sorted_BK - sorted_BK[:, :1]).exp() * 2**40).round()
    only = torch.zeros_like(weights)
    only[:, 0] = 2**40  # a NaN or an infinite score comes first
    return torch.where(sorted_BK[:, :1].isfinite(), weights, only).long()


def plain_penalty(logits_BV: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Scores after the penalty, from whole histories."""
    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    for i, ids in enumerate(histories):
        seen_BV[i, list(ids)] = True
    punished = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, punished, logits_BV)

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
    probabilities = scores.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = before >= sampling.top_p
    if sampling.min_p is not None:
        outside |= probabilities < sampling.min_p * probabilities[:, :1]
    outside[:, 0] = False
    kept = probabilities.masked_fill(outside, 0.0)
    cumulative = (kept / kept.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    last = (~outside).sum(dim=-1, keepdim=True) - 1
    chosen = (cumulative <= uniform_B[:, None]).sum(dim=-1, keepdim=True).minimum(last)
    return order.gather(-1, chosen).squeeze(-1)


def plain_penalty(logits_BV: Tensor, histories: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Scores after the penalty, from whole histories."""
    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    for i, ids in enumerate(histories):
        seen_BV[i, list(ids)] = True
    punished = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, punished, logits_BV)

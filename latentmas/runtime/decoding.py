"""Text generation after a prompt of embeddings; rows retire one by one.

Shapes: `B` batch, `V` vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentmas.errors import LatentMASError
from latentmas.runtime.packing import Packed
from latentmas.runtime.rollout import Feed

__all__ = ["Sampling", "decode", "pick"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int = 256
    """Most tokens written."""
    do_sample: bool = False
    """False: the most likely token. True: draw."""
    temperature: float = 1.0
    top_p: float = 1.0
    """Draw from the smallest set of tokens with at least this probability."""
    top_k: int | None = None
    """Draw from this many likeliest tokens."""
    seed: int = 0
    """Each row draws from a stream of its own, so a batch gives what its rows alone would."""

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
            "temperature must be above 0": self.temperature > 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be at least 1": self.top_k is None or self.top_k >= 1,
        }
        for message, fine in checks.items():
            if not fine:
                raise LatentMASError(f"sampling: {message}")


def decode(
    feed: Feed,
    prompt: Packed,
    sampling: Sampling,
    *,
    first_row: int = 0,
    stream: str = "",
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Write tokens until every row has ended.

    Args:
        feed: of the agent that writes.
        prompt: what it reads.
        sampling: how it chooses.
        first_row: number of the batch's first sample in the run; seeds the rows' streams.
        stream: name of this decode (agent and round), likewise.
        on_token: called with (row, token id) for each token written.

    Returns:
        B lists of token ids, without the end token.
    """
    backbone, limit = feed.backbone, sampling.max_new_tokens
    size = prompt.x_BTD.shape[0]
    draws = _draws(sampling, size, first_row, stream)
    written: list[list[int]] = [[] for _ in range(size)]
    open_rows = set(range(size))
    h_BD = feed.feed(prompt.x_BTD, prompt.mask_BT)
    for step in range(limit):
        tokens_B = pick(backbone.logits(h_BD), sampling, None if draws is None else draws[:, step])
        for row, token in enumerate(tokens_B.tolist()):
            if row not in open_rows:
                continue
            if token in backbone.stop_ids:
                open_rows.discard(row)
                continue
            written[row].append(token)
            if on_token is not None:
                on_token(row, token)
        if not open_rows or step == limit - 1:
            break
        h_BD = feed.feed_one(backbone.embed(tokens_B))
    return written


def pick(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor | None) -> Tensor:
    """Choose a token for each row.

    Args:
        logits_BV: scores.
        sampling: how.
        uniform_B: one draw from [0, 1) for each row, when sampling.

    Returns:
        Token ids, (B,).
    """
    if not sampling.do_sample or uniform_B is None:
        return logits_BV.argmax(dim=-1)
    scores, order = (logits_BV.float() / sampling.temperature).sort(dim=-1, descending=True)
    probabilities = scores.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = before >= sampling.top_p
    if sampling.top_k is not None:
        outside |= torch.arange(scores.shape[-1], device=scores.device) >= sampling.top_k
    outside[:, 0] = False
    kept = probabilities.masked_fill(outside, 0.0)
    cumulative = (kept / kept.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    uniform = uniform_B.to(cumulative.device, cumulative.dtype)[:, None]
    last = (~outside).sum(dim=-1, keepdim=True) - 1
    chosen = (cumulative <= uniform).sum(dim=-1, keepdim=True).minimum(last)
    return order.gather(-1, chosen).squeeze(-1)


def _draws(sampling: Sampling, size: int, first_row: int, stream: str) -> Tensor | None:
    """Uniform numbers, (B, max_new_tokens): a stream for each sample of the run."""
    if not sampling.do_sample:
        return None
    rows = []
    for row in range(first_row, first_row + size):
        name = f"{sampling.seed}/{stream}/{row}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
        rows.append(
            torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed))
        )
    return torch.stack(rows)

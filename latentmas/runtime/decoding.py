"""Text generation after a prompt of embeddings; each row ends on its own.

Shapes: `B` batch, `N` tokens fed at once, `V` vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentmas.runtime.packing import Packed
from latentmas.runtime.rollout import Feed
from latentmas.runtime.sampling import Draws, Sampling, pick
from latentmas.runtime.steering import Next, Steering

__all__ = ["Writing", "Written", "decode"]


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What a batch of rows is to write; its sequences are those of rows and times."""

    times: int = 1
    """How many texts follow each prompt, which is read once."""
    sampling: Sampling
    budgets: Sequence[int]
    """Most tokens that each row chooses; tokens of a steering are not counted."""
    rooms: Sequence[int | None]
    """Most tokens that each row's context holds after its prompt; None knows no bound."""
    streams: Sequence[str]
    """Names of the rows' random streams."""
    steering: Steering = field(default_factory=Steering)
    on_token: Callable[[int, int], None] = lambda row, token: None
    """Called with (row, token id) for each token, chosen or not."""


@dataclass
class Written:
    """One row's text, as it grows."""

    budget: int
    room: int | None
    ids: list[int] = field(default_factory=list)
    """Tokens so far, without the end token."""
    chosen: int = 0
    """How many of them the row chose itself."""
    waiting: deque[int] = field(default_factory=deque)
    """Tokens that are in `ids` and not yet fed."""
    open: bool = True

    def add(self, tokens: Sequence[int]) -> None:
        """Append tokens, to be fed."""
        self.ids.extend(tokens)
        self.waiting.extend(tokens)

    @property
    def spent(self) -> bool:
        """Whether it may choose no further token."""
        return self.chosen >= self.budget or (self.room is not None and len(self.ids) >= self.room)


def decode(feed: Feed, prompt: Packed, writing: Writing) -> list[Written]:
    """Write tokens until every row has ended.

    Rows advance together, a token of each at a step, so that no row is ever padded in its middle;
    where every open row has several tokens waiting, they are fed at once.

    Args:
        feed: of the agent that writes.
        prompt: what it reads.
        writing: how, and how much.

    Returns:
        B × times rows.
    """
    rows = [
        Written(budget, room) for budget, room in zip(writing.budgets, writing.rooms, strict=True)
    ]
    choose = _chooser(feed, writing)
    h_BD = feed.feed_prompt(prompt)
    if writing.times > 1:
        feed.expand(writing.times)
        h_BD = h_BD.repeat_interleave(writing.times, dim=0)
    while True:
        ready = [i for i, row in enumerate(rows) if row.open and not row.waiting]
        _end([i for i in ready if rows[i].spent], rows, writing)
        ready = [i for i in ready if rows[i].open and not rows[i].waiting]
        if ready:
            _settle(rows, dict(zip(ready, choose(h_BD, rows, ready), strict=True)), feed, writing)
        if not any(row.open for row in rows):
            return rows
        h_BD = _feed_waiting(feed, rows)


Chooser = Callable[[Tensor, Sequence[Written], list[int]], list[int]]


def _chooser(feed: Feed, writing: Writing) -> Chooser:
    """A function that chooses the next token of each of some rows."""
    sampling = writing.sampling
    draws = Draws(list(writing.streams)) if sampling.do_sample else None

    def choose(h_BD: Tensor, rows: Sequence[Written], ready: list[int]) -> list[int]:
        logits_BV, seen_BV = feed.backbone.logits(h_BD), None
        if sampling.repetition_penalty != 1.0:
            seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
            for i in ready:
                seen_BV[i, rows[i].ids] = True
        uniform_B = None if draws is None else draws.next(ready)
        tokens_B: list[int] = pick(logits_BV, sampling, uniform_B, seen_BV).tolist()
        return [tokens_B[i] for i in ready]

    return choose


def _settle(
    rows: Sequence[Written], chosen: Mapping[int, int], feed: Feed, writing: Writing
) -> None:
    """Take in the chosen tokens, and what the steering makes of them."""
    wrote, stop_ids = {}, feed.backbone.stop_ids
    for i, token in chosen.items():
        if token in stop_ids:
            continue
        rows[i].add([token])
        rows[i].chosen += 1
        wrote[i] = rows[i].ids
        writing.on_token(i, token)
    follows = writing.steering.after_tokens(wrote) if wrote else {}
    ended = [i for i in chosen if i not in wrote]
    ended += [i for i, follow in follows.items() if follow.end]
    ended += [i for i in wrote if i not in follows and rows[i].spent]
    for i, follow in follows.items():
        if not follow.end and not _go_on(i, rows[i], follow, writing):
            rows[i].open = False  # no room for what follows
    _end(ended, rows, writing)


def _end(ended: Sequence[int], rows: Sequence[Written], writing: Writing) -> None:
    """Close rows, but for those that the steering leads on."""
    follows = writing.steering.at_end({i: rows[i].ids for i in ended}) if ended else {}
    for i in ended:
        rows[i].open = i in follows and _go_on(i, rows[i], follows[i], writing)


def _go_on(i: int, row: Written, follow: Next, writing: Writing) -> bool:
    """Let a row go on; False when its context has no room."""
    if row.room is not None and len(row.ids) + len(follow.tokens) >= row.room:
        return False
    row.add(follow.tokens)
    for token in follow.tokens:
        writing.on_token(i, token)
    if follow.budget is not None:
        row.budget = row.chosen + follow.budget
    return True


def _feed_waiting(feed: Feed, rows: Sequence[Written]) -> Tensor:
    """Feed as many tokens as every open row has waiting; ended rows read padding."""
    count = min(len(row.waiting) for row in rows if row.open)
    pad = feed.backbone.pad_id
    ids_BN = torch.tensor(
        [
            [row.waiting.popleft() for _ in range(count)] if row.open else [pad] * count
            for row in rows
        ]
    )
    x_BND = feed.backbone.embed(ids_BN)
    return feed.feed(x_BND, torch.ones_like(x_BND[..., 0], dtype=torch.long))

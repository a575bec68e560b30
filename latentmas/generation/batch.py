"""Text generation after prompts of embeddings; each row ends on its own, and others may join.

Shapes: `B` rows, `N` tokens fed at once, `V` vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.engine import Packed
from latentmas.generation.controllers import Continuation, GenerationController
from latentmas.generation.penalty import WrittenTokens
from latentmas.generation.sampling import Sampling, pick, random_stream

if TYPE_CHECKING:
    from latentmas.engine import DecoderSession, Executor

__all__ = ["FinishReason", "GenerationBatch", "GenerationRequest", "GeneratedSequence"]

FinishReason = Literal["stop", "length", "tool_limit"]
"""`stop`: the model ended its turn, or wrote a stop string. `length`: a limit of tokens, or the end
of the context."""
AHEAD = 256
"""Positions that a feed is told to expect, at most."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What the rows of one batch are to write; its rows are those of prompts and times."""

    num_return_sequences: int = 1
    """How many texts follow each prompt, which is read once."""
    max_new_tokens: Sequence[int]
    """Maximum number of tokens that each row chooses; those of a controller are not counted."""
    context_left: Sequence[int | None]
    """Number of tokens that fit into each row's context after its prompt; None for no limit."""
    streams: Sequence[str]
    """Names of the rows' random streams."""
    sampling: Sampling | None = None
    """How these rows choose tokens; None: as the batch does."""
    controller: GenerationController = field(default_factory=GenerationController)
    on_token: Callable[[int, int], None] = lambda row, token: None
    """Called with (row, token id) for each token, chosen or not."""


@dataclass(eq=False)
class GeneratedSequence:
    """One row's text, as it grows."""

    request: GenerationRequest
    index: int
    """Which row of its writing it is."""
    stream: torch.Generator
    max_new_tokens: int
    context_left: int | None
    ids: list[int] = field(default_factory=list)
    """Tokens so far, without the end token."""
    chosen: int = 0
    """How many of them the row chose itself."""
    waiting: deque[int] = field(default_factory=deque)
    """Tokens that are in `ids` and not yet fed."""
    open: bool = True
    finish: FinishReason = "stop"
    """Why it has ended."""
    seconds: float = 0.0
    """The row's share of the time that the batch's steps took."""

    def add(self, tokens: Sequence[int]) -> None:
        """Append tokens, to be fed."""
        self.ids.extend(tokens)
        self.waiting.extend(tokens)

    @property
    def ready(self) -> bool:
        """Whether it is to choose a token now."""
        return self.open and not self.waiting

    @property
    def spent(self) -> bool:
        """Whether it may choose no further token."""
        return self.chosen >= self.max_new_tokens or (
            self.context_left is not None and len(self.ids) >= self.context_left
        )

    def end(self) -> None:
        """End the row here, whatever its controller would do: nobody wants its text any more."""
        self.open = False

    def lead(self, continuation: Continuation) -> None:
        """Go on with tokens that it did not choose, or end where its context has no room."""
        self.open = self._take(continuation)
        if not self.open:
            self.finish = "length"

    def _take(self, continuation: Continuation) -> bool:
        if (
            self.context_left is not None
            and len(self.ids) + len(continuation.tokens) >= self.context_left
        ):
            return False
        self.add(continuation.tokens)
        for token in continuation.tokens:
            self.request.on_token(self.index, token)
        if continuation.max_new_tokens is not None:
            self.max_new_tokens = self.chosen + continuation.max_new_tokens
        return True


class GenerationBatch:
    """Rows that write together, a token of each at a step.

    No row is ever padded in its middle: where every open row has several tokens waiting, they are
    fed at once, else one of each. Ended rows leave when that pays.
    """

    def __init__(self, executor: Executor, backbone: LoadedBackbone, sampling: Sampling) -> None:
        """An empty batch.

        Args:
            executor: Executor that feeds the backbone.
            backbone: Backbone of the agent that writes.
            sampling: Sampling settings of rows whose request has none of its own.
        """
        self._executor, self._backbone, self._sampling = executor, backbone, sampling
        self._feed: DecoderSession | None = None
        self._rows: list[GeneratedSequence] = []
        self._written: WrittenTokens | None = None
        """Tokens of all rows, once a row with a repetition penalty has joined."""
        self._h_BD: Tensor | None = None

    @property
    def live(self) -> int:
        """Rows that have not ended."""
        return sum(row.open for row in self._rows)

    def can_merge(self) -> bool:
        """Whether rows may join while others write."""
        return self._feed is None or self._feed.can_merge()

    def add(self, prompt: Packed, request: GenerationRequest) -> list[GeneratedSequence]:
        """Read prompts; their B × num_return_sequences rows join in."""
        began = time.perf_counter()
        feed = self._executor.session(self._backbone)
        feed.takes_in = self._feed is None
        feed.reserve(min(AHEAD, max(request.max_new_tokens)) if feed.takes_in else 0)
        try:
            h_BD = feed.prefill(prompt)
            if request.num_return_sequences > 1:
                count = request.num_return_sequences
                each = [i for i in range(len(prompt.lengths)) for _ in range(count)]
                feed.select(each)
                h_BD = h_BD[each]
        except BaseException:
            feed.close()
            raise
        limits = zip(request.max_new_tokens, request.context_left, request.streams, strict=True)
        rows = [
            GeneratedSequence(request, i, random_stream(stream), most, left)
            for i, (most, left, stream) in enumerate(limits)
        ]
        if self._feed is None or self._h_BD is None:
            self._feed, self._h_BD = feed, h_BD
        else:
            self._feed.join(feed)
            self._h_BD = torch.cat([self._h_BD, h_BD])
        self._rows += rows
        self._note_rows(len(rows), request.sampling or self._sampling)
        _charge(rows, began)
        return rows

    def _note_rows(self, count: int, sampling: Sampling) -> None:
        """Keep account of what the newest rows write, if a row is penalised for repetitions."""
        if self._written is not None:
            self._written.add_rows(count)
        elif sampling.repetition_penalty != 1.0:
            self._written = WrittenTokens()
            self._written.add_rows(len(self._rows))  # earlier rows have no penalty

    def advance(self) -> None:
        """Let every row that is ready choose a token; feed what waits."""
        assert self._feed is not None
        assert self._h_BD is not None
        began, live = time.perf_counter(), [row for row in self._rows if row.open]
        self._end([row for row in self._rows if row.ready and row.spent], "length")
        ready = [i for i, row in enumerate(self._rows) if row.ready]
        if ready:
            self._settle(dict(zip(ready, self._choose(self._feed, self._h_BD, ready), strict=True)))
        if self.live:
            self._shed(self._feed)
            self._h_BD = self._feed_waiting(self._feed)
        else:
            self.close()
        _charge(live, began)

    def run(self) -> None:
        """Advance until every row has ended."""
        try:
            while self.live:
                self.advance()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of all rows, and of what they have been fed."""
        if self._feed is not None:
            self._feed.close()
        self._feed, self._h_BD, self._rows = None, None, []
        if self._written is not None:
            self._written.select([])

    def _choose(self, feed: DecoderSession, h_BD: Tensor, ready: list[int]) -> list[int]:
        """The next token of each of some rows."""
        logits_BV, tokens = feed.backbone.logits(h_BD), dict[int, int]()
        if self._written is not None:
            penalties = [self._sampling_of(row).repetition_penalty for row in self._rows]
            self._written.penalise(logits_BV, penalties)
        for sampling, rows in self._by_sampling(ready):
            tokens |= zip(rows, self._pick(logits_BV, sampling, rows), strict=True)
        return [tokens[i] for i in ready]

    def _sampling_of(self, row: GeneratedSequence) -> Sampling:
        return row.request.sampling or self._sampling

    def _by_sampling(self, ready: list[int]) -> list[tuple[Sampling, list[int]]]:
        """Rows that choose in the same way."""
        found: dict[Sampling, list[int]] = {}
        for i in ready:
            found.setdefault(self._sampling_of(self._rows[i]), []).append(i)
        return list(found.items())

    def _pick(self, logits_BV: Tensor, sampling: Sampling, rows: list[int]) -> list[int]:
        """The next token of each of some rows that choose in the same way."""
        if len(rows) < len(logits_BV):
            logits_BV = logits_BV[rows]
        uniform_B = None
        if sampling.do_sample:
            uniform_B = torch.stack([torch.rand((), generator=self._rows[i].stream) for i in rows])
        tokens: list[int] = pick(logits_BV, sampling, uniform_B).tolist()
        return tokens

    def _settle(self, chosen: Mapping[int, int]) -> None:
        """Take in the chosen tokens, and what the controllers make of them."""
        wrote, ended, spent = (
            list[GeneratedSequence](),
            list[GeneratedSequence](),
            list[GeneratedSequence](),
        )
        for i, token in chosen.items():
            row = self._rows[i]
            if token in self._backbone.stop_ids:
                ended.append(row)
                continue
            row.add([token])
            row.chosen += 1
            wrote.append(row)
            row.request.on_token(row.index, token)
        for request, rows in _by_writing(wrote):
            continuations = request.controller.after_tokens({row.index: row.ids for row in rows})
            for row in rows:
                continuation = continuations.get(row.index)
                if continuation is None:
                    spent += [row] if row.spent else []
                elif continuation.end:
                    ended.append(row)
                else:
                    row.lead(continuation)
        self._end(ended, "stop")
        self._end(spent, "length")

    @staticmethod
    def _end(ended: Sequence[GeneratedSequence], why: FinishReason) -> None:
        """Close rows, but for those that their controller leads on."""
        for request, rows in _by_writing(ended):
            continuations = request.controller.at_end({row.index: row.ids for row in rows})
            for row in rows:
                row.open, row.finish = False, why
                if row.index in continuations:
                    row.lead(continuations[row.index])

    def _shed(self, feed: DecoderSession) -> None:
        """Drop ended rows where that pays; the last ones take their places."""
        count = self.live
        if feed.should_compact(count, len(self._rows)):
            last = iter([i for i in range(count, len(self._rows)) if self._rows[i].open])
            kept = [i if self._rows[i].open else next(last) for i in range(count)]
            feed.select(kept)
            self._rows = [self._rows[i] for i in kept]
            if self._written is not None:
                self._written.select(kept)

    def _feed_waiting(self, feed: DecoderSession) -> Tensor:
        """Feed as many tokens as every open row has waiting; ended rows read padding."""
        count = min(len(row.waiting) for row in self._rows if row.open)
        pad = self._backbone.pad_id
        ids_BN = [
            [row.waiting.popleft() for _ in range(count)] if row.open else [pad] * count
            for row in self._rows
        ]
        if self._written is not None:
            self._written.write([(i, ids_BN[i]) for i, row in enumerate(self._rows) if row.open])
        return feed.feed(self._backbone.embed(torch.tensor(ids_BN)))


def _charge(rows: Sequence[GeneratedSequence], began: float) -> None:
    """Share the time since `began` out among rows."""
    for row in rows:
        row.seconds += (time.perf_counter() - began) / len(rows)


def _by_writing(
    rows: Sequence[GeneratedSequence],
) -> list[tuple[GenerationRequest, list[GeneratedSequence]]]:
    """Rows by the writing that they belong to."""
    found: dict[int, tuple[GenerationRequest, list[GeneratedSequence]]] = {}
    for row in rows:
        found.setdefault(id(row.request), (row.request, []))[1].append(row)
    return list(found.values())

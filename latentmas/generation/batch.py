"""Text generation after prompts of embeddings; each row ends on its own, and others may join.

Shapes: `B` rows, `N` tokens fed at once, `V` vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.engine import Packed
from latentmas.generation.ahead import begin_reading, choice_numbers, chooser_for
from latentmas.generation.penalty import WrittenTokens
from latentmas.generation.rows import FinishReason, GeneratedSequence, GenerationRequest
from latentmas.generation.sampling import Sampling, pick, random_stream

if TYPE_CHECKING:
    from latentmas.engine import Chooser, DecoderSession, Executor

__all__ = ["GenerationBatch"]

AHEAD = 256
"""Positions that a feed is told to expect, at most."""


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
        self._next_B: Tensor | None = None
        """Each row's next token, where the feed has chosen it."""

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
        self._next_B = None
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
        if ready and (chooser := self._chooser(self._feed)) is not None:
            self._advance_ahead(self._feed, self._h_BD, chooser)
            _charge(live, began)
            return
        if ready:
            self._settle(dict(zip(ready, self._choose(self._feed, self._h_BD, ready), strict=True)))
        if self.live:
            self._shed(self._feed)
            self._h_BD, self._next_B = self._feed_waiting(self._feed), None
        else:
            self.close()
        _charge(live, began)

    def _chooser(self, feed: DecoderSession) -> Chooser | None:
        """How the device chooses, if the next tokens may be fed before the host has seen them.

        Nothing but the end of a row can follow from them, and `chooser_for` knows how all rows
        choose.
        """
        if not feed.runs_ahead or all(row.last for row in self._rows):
            return None
        if any(not row.ready or not row.request.controller.only_ends for row in self._rows):
            return None
        return chooser_for(map(self._sampling_of, self._rows))

    def _advance_ahead(self, feed: DecoderSession, h_BD: Tensor, chooser: Chooser) -> None:
        """Feed every row's next token, and look at it while the device works.

        Rows that end with it have read a token and drawn a number too many, and leave.
        """
        ids_B = self._next_B
        if ids_B is None:
            ids_B = feed.choose(h_BD, chooser, self._numbers(chooser))
        read = begin_reading(ids_B)
        for row in self._rows:
            row.early = None  # these tokens are drawn with it
        self._h_BD, self._next_B = feed.write_ahead(ids_B, chooser, self._numbers(chooser))
        self._settle(dict(enumerate(read())))
        for row in self._rows:
            row.waiting.clear()
        if not self.live:
            self.close()
            return
        kept = self._shed(feed)
        if kept is not None:
            self._h_BD, self._next_B = self._h_BD[kept], self._next_B[kept]

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
        self._feed, self._h_BD, self._next_B, self._rows = None, None, None, []
        if self._written is not None:
            self._written.select([])

    def _numbers(self, chooser: Chooser) -> Tensor | None:
        """What a choice by the device reads, on the host; None: nothing."""
        if not chooser.reads:
            return None
        settings = [self._sampling_of(row) for row in self._rows]
        return choice_numbers(self._rows, settings, self._backbone.device)

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
            uniform_B = torch.tensor([self._rows[i].draw() for i in rows])
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

    def _shed(self, feed: DecoderSession) -> list[int] | None:
        """Drop ended rows where that pays; the last ones take their places.

        Returns:
            The rows that are kept, in their new order; None where all are.
        """
        count = self.live
        if not feed.should_compact(count, len(self._rows)):
            return None
        last = iter([i for i in range(count, len(self._rows)) if self._rows[i].open])
        kept = [i if self._rows[i].open else next(last) for i in range(count)]
        feed.select(kept)
        self._rows = [self._rows[i] for i in kept]
        if self._written is not None:
            self._written.select(kept)
        return kept

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

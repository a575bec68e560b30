"""Many samples through one interpreter: batches of like length, and final texts that overlap.

Rows end at different times. When enough of them have, the next samples go through their latent
phase, and write beside those that are still at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latentmas.errors import ExecutionError
from latentmas.generation import Answer, GenerationBatch
from latentmas.plan import Decode
from latentmas.runtime.interpreter import BatchState, Interpreter
from latentmas.runtime.observing.events import SampleEnd
from latentmas.runtime.samples import Errors

__all__ = ["Flow", "by_length", "sample_end"]


def by_length(
    samples: Sequence[Mapping[str, Any]], inputs: Sequence[str], numbers: Sequence[int]
) -> list[int]:
    """Numbers of samples, longest first, so that batches have little padding.

    The longest come first because memory then runs out at once or never.
    """
    sizes = {i: sum(len(str(samples[i][name])) for name in inputs) for i in numbers}
    return sorted(numbers, key=lambda i: -sizes[i])


@dataclass
class Flow:
    """Walks samples in batches; where errors are kept, a failing row does not affect the others.

    A batch that fails is halved until the row at fault runs alone, since a row gives the same
    result alone as in a batch. Retried rows run apart from all others, so that the failing row is
    known.
    """

    interpreter: Interpreter
    samples: Sequence[Mapping[str, Any]]
    """All samples of the run."""
    batch_size: int
    """Maximum number of samples in progress at once."""
    refill_threshold: float
    """Share of them that must have finished before others join; 1 waits for all."""
    put_away: Callable[[BatchState], None]
    """Function that is called with each finished walk."""
    forget: Callable[[int], None]
    """Function that is called when a batch fails, with the number of rows past the latent phase."""
    keeps: Callable[[], bool]
    """Function that says whether an error is kept for its row rather than raised."""
    errors: Errors = field(default_factory=dict)
    """Rows that have failed, with their errors."""
    walks: list[BatchState] = field(default_factory=list)
    """Finished walks."""
    begun: list[int] = field(default_factory=list)
    """Rows whose latent phase is over, in order; a row that ran twice is listed twice."""
    _again: deque[list[int]] = field(default_factory=deque)
    """Rows of failed batches."""
    _open: list[BatchState] = field(default_factory=list)
    _batches: int = 0
    _retries: bool = False
    """Whether rows of a failed batch are under way, beside which no others may run."""
    _told: set[int] = field(default_factory=set)

    def run(self, numbers: Sequence[int]) -> None:
        """Walk the samples of these numbers."""
        order = list(numbers)
        if len(order) > self.batch_size:
            order = by_length(self.samples, self.interpreter.plan.graph.inputs, order)
        waiting, pool = deque(order), self._pool()
        try:
            while waiting or self._again or self._open:
                if self._again and not self._open:
                    self._retries = True
                    self._begin(self._again.popleft(), pool)
                elif waiting and not self._again and (room := self._room(pool)):
                    self._begin([waiting.popleft() for _ in range(min(room, len(waiting)))], pool)
                else:
                    self._advance(pool)
                self._finish()
        finally:
            pool.close()

    def _pool(self) -> GenerationBatch:
        last = self.interpreter.plan.steps[-1]
        assert isinstance(last, Decode)
        return self.interpreter.pool(last)

    def _room(self, pool: GenerationBatch) -> int:
        """How many samples may join now."""
        size, live = self.batch_size, -(-pool.live // self.interpreter.num_return_sequences)
        room = size - live
        free = room == size or (pool.can_merge() and room >= max(1, self.refill_threshold * size))
        return room if free and not self._retries else 0

    def _begin(self, rows: list[int], pool: GenerationBatch) -> None:
        """The latent phase of a batch, and the beginning of its texts."""
        self._batches += 1
        batch = [self.samples[i] for i in rows]
        try:
            walk = self.interpreter.walk(batch, pool=pool, rows=rows, batch=self._batches - 1)
        except ExecutionError as error:
            self.forget(len(self.begun))
            if error.step == len(self.interpreter.plan.steps) - 1:  # it may have spoilt the pool
                rows = [*self._drop(pool), *rows]
            self._failed(rows, error)
            return
        self.begun += rows
        self._open.append(walk)

    def _advance(self, pool: GenerationBatch) -> None:
        """A token of each row that writes."""
        plan = self.interpreter.plan
        try:
            with self.interpreter.annotate_errors(len(plan.steps) - 1):
                backbone = self.interpreter.team.backbone_of(plan.steps[-1].agent)
                self.interpreter.executor.prepare(backbone)
                pool.advance()
        except ExecutionError as error:
            self._failed(self._drop(pool), error)

    def _drop(self, pool: GenerationBatch) -> list[int]:
        """Give up the batches that are under way; their rows."""
        pool.close()
        rows = [row for walk in self._open for row in walk.rows]
        self._open.clear()
        return rows

    def _failed(self, rows: list[int], error: ExecutionError) -> None:
        """Try the halves of a batch again, or keep the error of a single row."""
        if not self.keeps():
            raise error
        if len(rows) > 1:
            middle = len(rows) // 2
            self._again += [rows[:middle], rows[middle:]]
        else:
            self.errors[rows[0]] = _light(error)
            self._tell(SampleEnd(rows[0], error=error))

    def _finish(self) -> None:
        """Tell of the samples that have ended, and put away the batches that have."""
        for walk in list(self._open):
            ended = {} if walk.draft is None else walk.draft.ended()
            for i, answers in ended.items():
                self._tell(sample_end(walk, i, answers))
            if walk.draft is None or walk.draft.done:
                if walk.draft is not None:
                    self.interpreter.complete(walk)
                self.put_away(walk)
                self.walks.append(walk)
                self._open.remove(walk)
        self._retries = self._retries and bool(self._open)

    def _tell(self, event: SampleEnd) -> None:
        """Tell of a sample once, though it may run again beside one that has failed."""
        if event.sample not in self._told:
            self._told.add(event.sample)
            self.interpreter.on_event(event)


def sample_end(walk: BatchState, row: int, answers: Sequence[Answer]) -> SampleEnd:
    """The end of a sample whose final texts are written, though others of its batch write on."""
    assert walk.draft is not None
    prompt, calls, cost = walk.draft.turn.prompt, walk.calls[row], walk.costs[row]
    ids = [] if prompt.ids_BT is None else prompt.ids_BT[row].tolist()
    return SampleEnd(
        walk.rows[row],
        texts=tuple(answer.text for answer in answers),
        token_ids=tuple(tuple(answer.ids) for answer in answers),
        finish_reasons=tuple(answer.finish for answer in answers),
        tool_calls=(*calls, *(call for answer in answers for call in answer.calls)),
        cost=replace(cost, new_tokens=cost.new_tokens + sum(answer.chosen for answer in answers)),
        prompt_ids=tuple(ids[len(ids) - prompt.lengths[row] :]),
    )


def _light(error: ExecutionError) -> ExecutionError:
    """Without tracebacks: their frames hold on to the batch's tensors."""
    cause: BaseException | None = error
    while cause is not None:
        cause.with_traceback(None)
        cause.__context__ = None
        cause = cause.__cause__
    return error

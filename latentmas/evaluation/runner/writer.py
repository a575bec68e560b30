"""Grades rows that have ended, in threads, and keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from latentmas.errors import DataError
from latentmas.evaluation.graders import Grade, Grader
from latentmas.evaluation.runner.records import Answer, RowRecord
from latentmas.evaluation.runner.results import Results
from latentmas.runtime import SampleEnd

if TYPE_CHECKING:
    from latentmas.evaluation.runner.job import Job, Rows

__all__ = ["Writer"]

GRADING_THREADS = 4
"""Number of rows that are graded at the same time, while others are generated."""


class Writer:
    """Turns ends of samples into graded rows, in threads."""

    def __init__(self, job: Job, rows: Rows, grader: Grader, results: Results) -> None:
        self.failed: dict[int, DataError] = {}
        """Rows that have failed, with their errors."""
        self._job, self._rows, self._grader, self._results = job, rows, grader, results
        self._threads = ThreadPoolExecutor(GRADING_THREADS, thread_name_prefix="grading")
        self._open = list[Future[None]]()
        self._tokenizer = job.system.backbone_of(job.system.plan.output).tokenizer

    def take(self, number: int, end: SampleEnd, seconds: float) -> None:
        """Grade and keep a row; an error is kept in its place."""
        self._open.append(self._threads.submit(self._keep, number, end, seconds))

    def settle(self) -> None:
        """Wait for the rows that are being graded."""
        open_, self._open = self._open, []
        for one in open_:
            one.result()

    def close(self) -> None:
        """Wait for the rows that are being graded, and end the threads."""
        try:
            self.settle()
        finally:
            self._threads.shutdown()

    def _keep(self, number: int, end: SampleEnd, seconds: float) -> None:
        error = None if end.error is None else str(end.error)
        answers: tuple[Answer, ...] = ()
        if error is None and number in self._rows.errors:
            error = str(self._rows.errors[number])
        if error is None:
            try:
                answers = self._graded(number, end)
            except Exception as broken:  # a grader may be the caller's own code
                told = f"{type(broken).__name__}: {broken}"
                error = f"sample {number}: grader {self._grader.name!r} failed: {told}"
        if error is not None:
            self.failed[number] = DataError(error)
        self._results.add(
            RowRecord(
                system=self._job.name,
                row=number,
                key=self._job.keys[number],
                sample=self._rows.samples[number],
                gold=self._rows.gold[number],
                prompt=_shown(end.prompt_ids, self._tokenizer),
                answers=answers,
                prompt_tokens=end.cost.prompt_tokens,
                latent_steps=end.cost.latent_steps,
                new_tokens=end.cost.new_tokens,
                seconds=round(seconds, 4),
                grader=self._grader.name,
                tool_calls=tuple(asdict(call) for call in end.tool_calls),
                error=error,
            )
        )

    def _graded(self, number: int, end: SampleEnd) -> tuple[Answer, ...]:
        gold, sample = self._rows.gold[number], self._rows.samples[number]
        grades = [self._grader.grade(text, gold, sample) for text in end.texts]
        return tuple(
            Answer(
                text=text,
                answer=grade.answer,
                right=bool(grade.right),
                score=grade.score,
                reason=grade.reason,
                finish_reason=finish,
                new_tokens=len(ids),
                token_ids=ids,
                group=self._group(grades, i),
            )
            for i, (text, grade, ids, finish) in enumerate(
                zip(end.texts, grades, end.token_ids, end.finish_reasons, strict=True)
            )
        )

    def _group(self, grades: Sequence[Grade], number: int) -> int:
        """Number of the first answer that says the same; its own without one."""
        found = self._grader.vote(grades[number], list(grades[:number])) if number else None
        return number if found is None else found


def _shown(ids: Sequence[int], tokenizer: Any) -> str:
    """A prompt as text, with messages by their number of rows."""
    parts = []
    for is_text, group in groupby(ids, lambda token: token >= 0):
        own = list(group)
        parts.append(tokenizer.decode(own) if is_text else f"<message: {len(own)} rows>")
    return "".join(parts)

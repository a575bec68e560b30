"""Run batches of samples through the interpreter and collect their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from latentmas.engine import Executor
from latentmas.errors import DataError
from latentmas.generation import Answer
from latentmas.plan import Decode, Plan, Rollout, Step, Transfer
from latentmas.runtime.flow import Flow
from latentmas.runtime.interpreter import BatchState, Interpreter
from latentmas.runtime.observing.events import Event, RunBegin, RunEnd, SampleEnd, Watcher
from latentmas.runtime.observing.recording import ReportRecorder
from latentmas.runtime.options import RECORDABLE, RunRequest
from latentmas.runtime.result import RunResult, add_up
from latentmas.runtime.samples import Errors, bad_samples, check_prompts

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["judge_samples", "make_interpreter", "run_batches"]

T = TypeVar("T")


def judge_samples(
    system: System,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    unread: Mapping[int, DataError],
    request: RunRequest,
) -> Errors:
    """Errors of the samples that cannot be run, found before the run.

    Args:
        system: System that will run.
        plan: Plan with the run's rounds and latent steps.
        rows: All samples.
        unread: Errors of samples that are not mappings of the graph's inputs.
        request: Checked arguments of the run.

    Returns:
        Errors by sample number.

    Raises:
        DataError: Samples cannot be run and errors are not kept; the message names all of them.
    """
    edited = request.edit_message is not None or bool(system.taps.edits)
    readable = {i: row for i, row in enumerate(rows) if i not in unread}
    errors: Errors = {**unread, **check_prompts(system, plan, readable, edited=edited)}
    if errors and request.options.on_error == "raise":
        raise bad_samples(errors, len(rows))
    return dict(sorted(errors.items()))


def run_batches(
    system: System,
    plan: Plan,
    samples: Sequence[Mapping[str, Any]],
    *,
    request: RunRequest,
    errors: Errors,
) -> RunResult:
    """Run all samples without errors, in batches."""
    options, executor, broken = request.options, request.executor, list[BaseException]()
    record, watchers = options.record, request.watchers
    recorder = ReportRecorder(system, plan, samples) if "report" in record else None
    if recorder is not None:
        executor = recorder.timed(executor)
        watchers = (recorder.on_event, *watchers)

    def announce(event: Event) -> None:
        try:
            for watcher in watchers:
                watcher(event)
        except BaseException as error:
            broken.append(error)  # raised by the caller's function, not by a sample
            raise

    asked = tuple(kind for name in record if name != "report" for kind in RECORDABLE[name])
    kept = {step.output for step in plan.steps if isinstance(step, asked)}
    flow = Flow(
        make_interpreter(system, plan, request, executor, announce),
        samples,
        batch_size=options.batch_size,
        refill_threshold=1.0 if options.refill_threshold is None else options.refill_threshold,
        put_away=lambda walk: _put_away(walk, recorder, kept),
        forget=system.taps.forget,
        keeps=lambda: options.on_error == "keep" and not broken,
        errors=errors,
    )
    system.taps.begin()
    announce(RunBegin(len(samples), len(plan.steps)))
    for number, error in sorted(errors.items()):
        announce(SampleEnd(number, error=error))
    began = time.perf_counter()
    try:
        with torch.no_grad(), executor.running(system.links):
            flow.run([number for number in range(len(samples)) if number not in errors])
    except BaseException as error:
        announce(RunEnd(time.perf_counter() - began, str(error) or repr(error)))
        raise
    seconds = time.perf_counter() - began
    system.taps.end(flow.begun, failed=flow.errors)
    announce(RunEnd(seconds, None))
    result = _collect(plan, flow.walks, len(samples))
    errors = dict(sorted(flow.errors.items()))
    result = replace(result, seconds=seconds, executor=executor.name, errors=errors)
    if recorder is not None:
        result = replace(result, record=recorder.record(batches=len(flow.walks)))
    return result


def make_interpreter(
    system: System, plan: Plan, request: RunRequest, executor: Executor, announce: Watcher
) -> Interpreter:
    """The interpreter of a run, which tells `announce` of each event."""
    kinds = tuple(kind for name in request.options.record for kind in RECORDABLE[name])
    return Interpreter(
        team=system,
        plan=plan,
        executor=executor,
        sampling=request.sampling,
        num_return_sequences=request.options.num_return_sequences,
        retry=request.retry,
        keep=lambda step: isinstance(step, (Decode, *kinds)),
        on_event=announce,
        edit=system.taps.through(request.edit_message),
    )


def _put_away(walk: BatchState, recorder: ReportRecorder | None, kept: Container[str]) -> None:
    """Read a walk for the report; move recorded tensors off the device.

    Batches therefore do not accumulate there, and neither do tensors that only the report needs.
    """
    if recorder is not None:
        recorder.read(walk)
    walk.prefixes.clear()
    walk.values = {
        name: value.cpu() if isinstance(value, Tensor) else value
        for name, value in walk.values.items()
        if not isinstance(value, Tensor) or name in kept
    }


class _Places:
    """Puts the results of walks in the order of the samples, with gaps for missing ones."""

    def __init__(self, count: int, walks: Sequence[BatchState]) -> None:
        self._count = count
        self._numbers = [row for walk in walks for row in walk.rows]

    def items(self, batches: Iterable[Sequence[T]], missing: Callable[[], T]) -> list[T]:
        """One item for each sample."""
        whole = [missing() for _ in range(self._count)]
        flat = (item for batch in batches for item in batch)
        for number, item in zip(self._numbers, flat, strict=True):
            whole[number] = item
        return whole

    def rows(self, batches: Sequence[Tensor]) -> Tensor:
        """One row for each sample; NaN where it is missing."""
        rows = torch.cat(list(batches))
        whole = rows.new_full((self._count, *rows.shape[1:]), torch.nan)
        whole[self._numbers] = rows
        return whole


def _collect(plan: Plan, walks: Sequence[BatchState], count: int) -> RunResult:
    """Results in the order of the samples, regardless of the order of the batches."""
    places = _Places(count, walks)

    def gather(kind: type) -> Iterator[tuple[str, list[Any]]]:
        for name in _names(plan, lambda step: isinstance(step, kind)):
            values = [walk.values[name] for walk in walks if name in walk.values]
            if values:
                yield name, values

    text_messages = {name: places.items(values, str) for name, values in gather(Decode)}
    text_messages.pop(plan.steps[-1].output, None)
    answers: list[list[Answer]] = places.items([walk.result for walk in walks], list)
    return RunResult(
        texts=[own[0].text if own else "" for own in answers],
        token_ids=[own[0].ids if own else [] for own in answers],
        sequences=[[answer.text for answer in own] for own in answers],
        sequence_ids=[[answer.ids for answer in own] for own in answers],
        finish_reasons=[[answer.finish for answer in own] for own in answers],
        tool_calls=places.items([walk.calls for walk in walks], list),
        retried=[i for i, own in enumerate(answers) if any(answer.retried for answer in own)],
        messages={name: places.rows(values) for name, values in gather(Transfer)},
        states={name: places.rows(values) for name, values in gather(Rollout)},
        text_messages=text_messages,
        accounting=add_up([record for walk in walks for record in walk.records]),
    )


def _names(plan: Plan, wanted: Callable[[Step], bool]) -> list[str]:
    return [step.output for step in plan.steps if wanted(step)]

"""Batches of samples through the interpreter, and their results put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.errors import DataError
from latentmas.plan import Decode, Plan, Rollout, Step, Transfer
from latentmas.runtime.checks import is_unicode
from latentmas.runtime.events import Event, RunBegin, RunEnd
from latentmas.runtime.executors._base import Executor
from latentmas.runtime.flow import flow
from latentmas.runtime.interpreter import Interpreter, Walk
from latentmas.runtime.options import RECORDABLE, RunOptions
from latentmas.runtime.recording import Recorder
from latentmas.runtime.result import RunResult, add_up

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["Sample", "check_samples", "run_batches"]

Sample = str | Mapping[str, Any]
"""A string (the graph's first input) or input fields by name."""


def check_samples(plan: Plan, samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """Samples as mappings that hold every input.

    Raises:
        DataError: naming the row and the field that is not there, or holds no Unicode.
    """
    if isinstance(samples, str | Mapping):
        raise DataError("run takes a sequence of samples; for one, call system(sample)")
    return [_check(plan, sample, row) for row, sample in enumerate(samples)]


def _check(plan: Plan, sample: Sample, row: int) -> Mapping[str, Any]:
    inputs = plan.graph.inputs
    if isinstance(sample, str):
        if len(inputs) != 1:
            wanted = ", ".join(inputs) or "none"
            raise DataError(f"sample {row} is a string, but the graph's inputs are: {wanted}")
        sample = {inputs[0]: sample}
    if not isinstance(sample, Mapping):
        raise DataError(f"sample {row} is {type(sample).__name__}; give a string or a mapping")
    for name in inputs:
        if name not in sample:
            found = ", ".join(map(str, sample)) or "nothing"
            raise DataError(f"sample {row} lacks the field {name!r}; it has: {found}")
        if sample[name] is None:
            raise DataError(
                f"sample {row}: the field {name!r} is null, which prompts would show as the word "
                'None; give a text ("" for nothing)'
            )
        if not is_unicode(sample[name]):
            raise DataError(
                f"sample {row}, field {name!r}: {sample[name]!r:.60} is not Unicode: half of a "
                "surrogate pair is in it; read the text as UTF-8"
            )
    return sample


def run_batches(
    system: System,
    plan: Plan,
    samples: Sequence[Mapping[str, Any]],
    *,
    options: RunOptions,
    executor: Executor,
) -> RunResult:
    """Run all samples in batches; options as `System.run`."""
    record, watchers = options.record, options.watchers
    kinds = tuple(kind for name in record for kind in RECORDABLE[name])
    recorder = Recorder(system, plan, samples) if "report" in record else None
    if recorder is not None:
        executor = recorder.timed(executor)
        watchers = (recorder.on_event, *watchers)

    def announce(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    def put_away(walk: Walk) -> None:
        _put_away(walk, recorder, record)

    interpreter = Interpreter(
        system=system,
        plan=plan,
        executor=executor,
        sampling=options.sampling,
        num_return_sequences=options.num_return_sequences,
        retry=options.retry,
        keep=lambda step: isinstance(step, (Decode, *kinds)),
        on_event=announce,
        edit_message=system.taps.through(options.edit_message),
        edit_text=system.taps.through(None),
    )
    system.taps.begin()
    announce(RunBegin(len(samples), len(plan.steps)))
    began = time.perf_counter()
    try:
        with torch.no_grad(), executor.running(system):
            walks = flow(
                interpreter,
                samples,
                batch_size=options.batch_size,
                refill=options.refill,
                put_away=put_away,
            )
    except BaseException as error:
        announce(RunEnd(time.perf_counter() - began, str(error) or repr(error)))
        raise
    seconds = time.perf_counter() - began
    system.taps.end([row for walk in walks for row in walk.rows])
    announce(RunEnd(seconds, None))
    result = replace(_collect(plan, walks, seconds), executor=executor.name)
    if recorder is not None:
        result = replace(result, record=recorder.record(batches=len(walks)))
    return result


def _put_away(walk: Walk, recorder: Recorder | None, record: Sequence[str]) -> None:
    """Read a walk for the report; move recorded tensors off the device.

    So batches do not pile up there, nor what the report alone needed.
    """
    if recorder is not None:
        recorder.read(walk)
    walk.prefixes.clear()
    walk.values = {
        name: value.cpu() if isinstance(value, Tensor) else value
        for name, value in walk.values.items()
        if not isinstance(value, Tensor) or ("messages" if "->" in name else "states") in record
    }


def _collect(plan: Plan, walks: Sequence[Walk], seconds: float) -> RunResult:
    """Results in the order of the samples, whatever that of the batches was."""
    numbers = [row for walk in walks for row in walk.rows]
    place = sorted(range(len(numbers)), key=numbers.__getitem__)

    def gather(kind: type) -> Iterator[tuple[str, list[Any]]]:
        for name in _names(plan, lambda step: isinstance(step, kind)):
            values = [walk.values[name] for walk in walks if name in walk.values]
            if values:
                yield name, values

    def said(texts: Sequence[Sequence[str]]) -> list[str]:
        flat = [text for own in texts for text in own]
        return [flat[i] for i in place]

    spoken = {name: said(values) for name, values in gather(Decode)}
    spoken.pop(plan.steps[-1].output, None)
    unordered = [own for walk in walks for own in walk.result]
    answers = [unordered[i] for i in place]
    calls = [own for walk in walks for own in walk.calls]
    return RunResult(
        texts=[own[0].text for own in answers],
        token_ids=[own[0].ids for own in answers],
        sequences=[[answer.text for answer in own] for own in answers],
        sequence_ids=[[answer.ids for answer in own] for own in answers],
        tool_calls=[calls[i] for i in place],
        retried=[i for i, own in enumerate(answers) if any(answer.retried for answer in own)],
        messages={name: torch.cat(values)[place] for name, values in gather(Transfer)},
        states={name: torch.cat(values)[place] for name, values in gather(Rollout)},
        spoken=spoken,
        accounting=add_up([record for walk in walks for record in walk.records]),
        seconds=seconds,
    )


def _names(plan: Plan, wanted: Callable[[Step], bool]) -> list[str]:
    return [step.output for step in plan.steps if wanted(step)]

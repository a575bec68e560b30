"""Batches of samples through the interpreter, and their results put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.errors import DataError, LatentMASError
from latentmas.plan import Decode, Plan, Rollout, Step, Transfer
from latentmas.runtime.events import Event, RunBegin, RunEnd, Watcher
from latentmas.runtime.executors._base import Executor
from latentmas.runtime.flow import flow
from latentmas.runtime.interpreter import EditMessage, Interpreter, Walk
from latentmas.runtime.recording import Recorder
from latentmas.runtime.result import RunResult, add_up
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.steering import Retry

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["Sample", "check_samples", "run_batches"]

Sample = str | Mapping[str, Any]
"""A string (the graph's first input) or input fields by name."""

RECORDABLE: dict[str, tuple[type, ...]] = {
    "messages": (Transfer,),
    "states": (Rollout,),
    "report": (Transfer, Rollout),
}


def check_samples(plan: Plan, samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """Samples as mappings that hold every input.

    Raises:
        DataError: naming the row and the field that is not there.
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
        return {inputs[0]: sample}
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
    return sample


def run_batches(
    system: System,
    plan: Plan,
    samples: Sequence[Mapping[str, Any]],
    *,
    sampling: Sampling,
    executor: Executor,
    record: Sequence[str],
    batch_size: int,
    watchers: Sequence[Watcher],
    edit_message: EditMessage | None = None,
    num_return_sequences: int = 1,
    retry: Retry | None = None,
    refill: float = 1.0,
) -> RunResult:
    """Run all samples in batches; arguments as `System.run`."""
    unknown = sorted(set(record) - set(RECORDABLE))
    if unknown:
        raise LatentMASError(f"cannot record {unknown[0]!r}; choose from {', '.join(RECORDABLE)}")
    if batch_size < 1:
        raise LatentMASError(f"batch_size is {batch_size}; choose at least 1")
    if not 0 < refill <= 1:
        raise LatentMASError(f"refill is {refill}; choose a share above 0 and at most 1")
    _check_sampling(sampling, len(samples), num_return_sequences)
    kinds = tuple(kind for name in record for kind in RECORDABLE[name])
    recorder = Recorder(system, plan, samples) if "report" in record else None
    watched = nullcontext() if recorder is None else recorder.watching(executor)
    watchers = watchers if recorder is None else [recorder.on_event, *watchers]

    def announce(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    def put_away(walk: Walk) -> None:
        _put_away(walk, recorder, record)

    interpreter = Interpreter(
        system=system,
        plan=plan,
        executor=executor,
        sampling=sampling,
        num_return_sequences=num_return_sequences,
        retry=retry,
        keep=lambda step: isinstance(step, (Decode, *kinds)),
        on_event=announce,
        edit_message=system.taps.through(edit_message),
        edit_text=system.taps.through(None),
    )
    system.taps.begin()
    announce(RunBegin(len(samples), len(plan.steps)))
    began = time.perf_counter()
    try:
        with torch.no_grad(), executor.running(system), watched:
            walks = flow(
                interpreter, samples, batch_size=batch_size, refill=refill, put_away=put_away
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


def _check_sampling(sampling: Sampling, samples: int, sequences: int) -> None:
    if sequences < 1:
        raise LatentMASError(f"num_return_sequences is {sequences}; choose at least 1")
    if sequences > 1 and not sampling.do_sample:
        raise LatentMASError(
            f"num_return_sequences={sequences} would be {sequences} equal answers; "
            "say do_sample=True"
        )
    if isinstance(sampling.seed, tuple) and len(sampling.seed) != samples:
        found = len(sampling.seed)
        raise LatentMASError(f"{found} seeds for {samples} samples; give one seed, or one for each")


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
    return RunResult(
        texts=[own[0].text for own in answers],
        token_ids=[own[0].ids for own in answers],
        sequences=[[answer.text for answer in own] for own in answers],
        sequence_ids=[[answer.ids for answer in own] for own in answers],
        tool_calls=[
            [replace(call, sequence=k) for k, answer in enumerate(own) for call in answer.calls]
            for own in answers
        ],
        retried=[i for i, own in enumerate(answers) if any(answer.retried for answer in own)],
        messages={name: torch.cat(values)[place] for name, values in gather(Transfer)},
        states={name: torch.cat(values)[place] for name, values in gather(Rollout)},
        spoken=spoken,
        accounting=add_up([record for walk in walks for record in walk.records]),
        seconds=seconds,
    )


def _names(plan: Plan, wanted: Callable[[Step], bool]) -> list[str]:
    return [step.output for step in plan.steps if wanted(step)]

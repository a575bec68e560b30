"""What a run is asked for beside its samples: every option judged before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from latentmas.errors import LatentMASError
from latentmas.plan import Rollout, Transfer
from latentmas.runtime.checks import function, number, refuse, strings, whole
from latentmas.runtime.events import Watcher
from latentmas.runtime.interpreter import EditMessage
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.steering import Retry, find_retry

__all__ = ["RECORDABLE", "OnError", "RunOptions", "check_on_error", "read_options"]

RECORDABLE: dict[str, tuple[type, ...]] = {
    "messages": (Transfer,),
    "states": (Rollout,),
    "report": (Transfer, Rollout),
}
"""What can be kept of a run, and the steps that make it."""


OnError = Literal["raise", "keep"]
"""Whether an error of one sample ends the run, or is kept beside the others' results."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of `System.run`, in order."""

    sampling: Sampling
    num_return_sequences: int
    retry: Retry | None
    record: tuple[str, ...]
    batch_size: int
    refill: float
    watchers: tuple[Watcher, ...]
    edit_message: EditMessage | None
    on_error: OnError


def read_options(
    samples: int,
    sampling: Sampling,
    *,
    num_return_sequences: int,
    retry: Retry | str | None,
    record: str | Sequence[str],
    batch_size: int,
    refill: float,
    on_event: Watcher | Sequence[Watcher],
    edit_message: EditMessage | None,
    on_error: str,
) -> RunOptions:
    """Options as `System.run` takes them, judged.

    Args:
        samples: how many the run has.
        sampling: how tokens are chosen.
        num_return_sequences: answers of each sample.
        retry: a second chance, or the name of one.
        record: what to keep.
        batch_size: most samples that are under way together.
        refill: the share of them that must have ended before others join.
        on_event: who is told.
        edit_message: replaces messages.
        on_error: what a sample that cannot be run does to the others.

    Raises:
        LatentMASError: an option is of the wrong type or out of range.
        UnknownNameError: no retry has that name.
    """
    sequences = whole("num_return_sequences", num_return_sequences)
    if sequences > 1 and not sampling.do_sample:
        raise LatentMASError(
            f"num_return_sequences={sequences} would be {sequences} equal answers; "
            "say do_sample=True"
        )
    if isinstance(sampling.seed, tuple) and len(sampling.seed) != samples:
        found = len(sampling.seed)
        raise LatentMASError(f"{found} seeds for {samples} samples; give one seed, or one for each")
    if not isinstance(retry, Retry | str | None):
        raise refuse("retry", retry, "give the name of a task, a Retry, or None")
    kept = strings("record", record)
    unknown = sorted(set(kept) - set(RECORDABLE))
    if unknown:
        raise LatentMASError(f"cannot record {unknown[0]!r}; choose from {', '.join(RECORDABLE)}")
    return RunOptions(
        sampling=sampling,
        num_return_sequences=sequences,
        retry=find_retry(retry),
        record=kept,
        batch_size=whole("batch_size", batch_size),
        refill=number("refill", refill, lambda x: 0 < x <= 1, "above 0 and at most 1"),
        watchers=_watchers(on_event),
        edit_message=function("edit_message", edit_message),
        on_error=check_on_error(on_error),
    )


def check_on_error(value: object) -> OnError:
    """What errors of single samples do.

    Raises:
        LatentMASError: it is neither `"raise"` nor `"keep"`.
    """
    if value == "raise":
        return "raise"
    if value == "keep":
        return "keep"
    raise refuse("on_error", value, "give 'raise' or 'keep'")


def _watchers(on_event: Watcher | Sequence[Watcher]) -> tuple[Watcher, ...]:
    if callable(on_event):
        return (on_event,)
    if not isinstance(on_event, list | tuple) or not all(map(callable, on_event)):
        raise refuse("on_event", on_event, "give a function of an event, or a list of such")
    return tuple(on_event)

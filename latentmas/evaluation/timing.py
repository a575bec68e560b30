"""Time executors on one team: the same samples, one process, interleaved runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.runtime import RunResult, System

__all__ = ["Timing", "time_executors"]


@dataclass(frozen=True)
class Timing:
    """Time of one executor, as medians over the repeats."""

    executor: str
    """Name of the executor."""
    seconds: float
    """Seconds of a whole run."""
    latent_seconds: float
    """Seconds in rollouts."""
    text_seconds: float
    """Seconds in turns that generate text."""
    ratio: float
    """Speed-up: the first executor's seconds divided by this one's."""
    same_tokens: bool
    """Whether it generated the same tokens as the first executor."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def time_executors(
    system: System,
    rows: Sequence[str | Mapping[str, Any]],
    names: Sequence[str],
    *,
    repeats: int = 3,
    **options: Any,
) -> list[Timing]:
    """Run the rows with each executor in turn, several times, after one warm-up run each.

    Args:
        system: the team.
        rows: samples.
        names: names of the executors; the first is the baseline.
        repeats: number of timed runs per executor.
        **options: options of `system.run`.

    Raises:
        LatentMASError: no executor is named, or `repeats` is below 1.
        UnknownNameError: the executor is unknown.
    """
    if not names or repeats < 1:
        raise LatentMASError("name at least one executor, and set repeats to at least 1")
    first = {name: system.run(rows, executor=name, **options) for name in names}
    runs: dict[str, list[RunResult]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            runs[name].append(system.run(rows, executor=name, **options))
    base = statistics.median(run.seconds for run in runs[names[0]])
    return [_timing(name, runs[name], base, first[names[0]], first[name]) for name in names]


def _timing(
    name: str, runs: Sequence[RunResult], base: float, oracle: RunResult, own: RunResult
) -> Timing:
    seconds = statistics.median(run.seconds for run in runs)
    return Timing(
        executor=name,
        seconds=seconds,
        latent_seconds=statistics.median(_spent(run, latent=True) for run in runs),
        text_seconds=statistics.median(_spent(run, latent=False) for run in runs),
        ratio=base / seconds,
        same_tokens=own.token_ids == oracle.token_ids,
    )


def _spent(run: RunResult, *, latent: bool) -> float:
    return sum(r.seconds for r in run.accounting if (r.op == "rollout") == latent)

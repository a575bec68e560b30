"""How fast executors run a team: one sample set, one process, interleaved."""

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
    """Seconds of one executor: medians over the repeats."""

    executor: str
    seconds: float
    """A whole run."""
    latent_seconds: float
    """Of it, in rollouts."""
    text_seconds: float
    """Of it, in turns that write."""
    ratio: float
    """Seconds of the first executor over this one's."""
    same_tokens: bool
    """Whether it wrote what the first one wrote."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def time_executors(
    system: System,
    rows: Sequence[str | Mapping[str, Any]],
    names: Sequence[str],
    *,
    repeats: int = 3,
    **options: Any,
) -> list[Timing]:
    """Run rows with each executor in turn, several times over, after one run to warm up.

    Args:
        system: the team.
        rows: samples.
        names: executors; the first is what the others are compared with.
        repeats: runs that count.
        **options: of `system.run`.

    Raises:
        LatentMASError: no executor is named, or `repeats` is below 1.
        UnknownNameError: there is no such executor.
    """
    if not names or repeats < 1:
        raise LatentMASError("time at least one executor, at least once")
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

"""A Ray cluster: connecting to it, and what workers need of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.redact import get_logger

__all__ = ["Needs", "Workers", "connected", "import_ray", "quiet"]

CPUS = 0.5
"""CPUs of a worker without a GPU: Ray Data needs some of its own, and waits for ever for them."""


@dataclass(frozen=True)
class Workers:
    """Workers to start, and what each takes of the cluster."""

    count: int
    gpus: float
    cpus: float


@dataclass(frozen=True)
class Needs:
    """How many workers there are to be, and what each needs; None is left to the cluster."""

    workers: int | None = None
    gpus: float | None = None
    cpus: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise LatentMASError(f"workers is {self.workers}; it is a whole number of at least 1")
        for name, value in {"gpus_per_worker": self.gpus, "cpus_per_worker": self.cpus}.items():
            if value is not None and value < 0:
                raise LatentMASError(f"{name} is {value}; it is a number of at least 0")

    def settle(self, resources: Mapping[str, float], *, gpu: bool) -> Workers:
        """All numbers chosen, and compared with what there is.

        Args:
            resources: resources of the cluster, as Ray counts them.
            gpu: whether teams run on GPUs.

        Raises:
            LatentMASError: the cluster has too little for them.
        """
        gpus = float(gpu) if self.gpus is None else self.gpus
        there, cpus_there = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
        workers = self.workers or (max(1, int(there / gpus)) if gpus else 1)
        if workers * gpus > there:
            raise LatentMASError(
                f"{workers} workers with {gpus:g} GPU each need {workers * gpus:g} GPUs, and the "
                f"cluster has {there:g}; lower workers or gpus_per_worker, or add machines"
            )
        spare = max(0.0, cpus_there - 1)  # Ray Data schedules tasks of its own
        cpus = self.cpus
        if cpus is None:
            cpus = 0.0 if gpus else min(CPUS, int(1000 * spare / workers) / 1000)
        if workers * cpus > spare:
            raise LatentMASError(
                f"{workers} workers with {cpus:g} CPU each need {workers * cpus:g} CPUs, and the "
                f"cluster has {cpus_there:g}, of which Ray needs one; lower workers or "
                "cpus_per_worker, or add machines"
            )
        return Workers(workers, gpus, cpus)


def import_ray() -> ModuleType:
    """Ray with its data sets.

    Raises:
        LatentMASError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise LatentMASError(
            f"engine 'ray' needs Ray ({error}); install it with: pip install 'latentmas[ray]'"
        ) from error
    return ray


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Around the use of a cluster; a connection that the caller has made is used and kept.

    Args:
        ray: the module.
        address: address of the cluster; None leaves it to Ray.

    Raises:
        LatentMASError: the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked Ray to report home
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises errors of many kinds here
        where = "a cluster on this machine" if address is None else f"the cluster at {address!r}"
        raise LatentMASError(
            f"engine 'ray' cannot reach {where}: {type(error).__name__}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def quiet(ray: Any) -> Iterator[None]:
    """Ray Data without its own bars and messages, as it was before at the end."""
    context, logger = ray.data.DataContext.get_current(), get_logger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)

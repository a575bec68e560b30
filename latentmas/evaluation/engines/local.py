"""The engine `local`: all rows in this process, one job after another."""

from __future__ import annotations

from collections.abc import Iterable

from latentmas.evaluation.engines import Engine, engines
from latentmas.evaluation.runner import Work, as_one_run

__all__ = ["LocalEngine", "run_here"]


@engines.register("local")
class LocalEngine(Engine):
    """Runs all rows in this process."""

    name = "local"
    """Registered name."""
    runs_whole = True
    """Whether it can run all rows at once, for a manifest or a report."""

    def run(self, works: Iterable[Work]) -> None:
        """Run the jobs one after another."""
        run_here(works)


def run_here(works: Iterable[Work]) -> None:
    """Run the tasks of jobs in this process, one job after another."""
    for work in works:
        with as_one_run([work], steps=len(work.job.system.plan.steps)):
            for task in work.tasks():
                work.run_here(task)

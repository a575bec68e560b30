"""What an evaluation lacks: what is finished is kept, and what is kept is not run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.graders import Grader
from latentmas.evaluation.runner.job import Job, Rows
from latentmas.evaluation.runner.results import Results
from latentmas.evaluation.runner.work import Work
from latentmas.evaluation.runner.writer import Writer
from latentmas.plan import RunOptions
from latentmas.runtime import Watcher, bad_samples

__all__ = ["Runner"]


@dataclass(kw_only=True)
class Runner:
    """Makes the work of jobs over the same rows with the same options."""

    rows: Rows
    grader: Grader
    results: Results
    options: RunOptions
    objects: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `System.run`."""
    watchers: Sequence[Watcher] = ()
    """Functions of events; each job is one run to them."""
    works: dict[str, Work] = field(default_factory=dict)
    """Work of each job that lacked rows."""

    def work(self, job: Job) -> Work | None:
        """The rows of a job that the results lack; None if they lack none.

        Raises:
            DataError: rows cannot be run; the error lists all of them. With `on_error="keep"`,
                the work has them with their errors instead.
        """
        missing = [n for n in self.rows.numbers if self.results.key(job.name, n) != job.keys[n]]
        if not missing:
            return None
        missing = list(self.rows.numbers) if job.whole else missing
        self.works[job.name] = Work(
            job=job,
            rows=self.rows,
            options=self.options,
            objects=self.objects,
            missing=missing,
            refused={} if job.whole else self._refused(job, missing),
            writer=Writer(job, self.rows, self.grader, self.results),
            watchers=self.watchers,
        )
        return self.works[job.name]

    def settle(self) -> None:
        """Wait for the rows that are being graded."""
        for work in self.works.values():
            work.writer.settle()

    def _refused(self, job: Job, missing: Sequence[int]) -> dict[int, LatentMASError]:
        """Rows that are known not to run; raised, unless errors are kept."""
        samples = [{**sample, **job.inputs} for sample in self.rows.samples]
        known = job.system.check(
            samples, rounds=self.options.rounds, latent_steps=self.options.latent_steps
        )
        errors = {n: known[n] for n in missing if n in known} | {
            n: self.rows.errors[n] for n in missing if n in self.rows.errors
        }
        if errors and self.options.on_error == "raise":
            raise bad_samples(errors, len(samples))
        return dict(sorted(errors.items()))

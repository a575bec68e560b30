"""The engine `ray`: a team in each worker of a Ray cluster, fed by Ray Data (extra `ray`).

The process that starts the evaluation grades and writes every row as it comes back, so there is one
results file with one writer. Ray starts workers that die again and repeats their tasks.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.engines import Engine, engines
from latentmas.evaluation.engines._calls import (
    Call,
    Ledger,
    make_calls,
    take_replies,
    task_size,
)
from latentmas.evaluation.engines._cluster import Needs, Workers, connected, import_ray, quiet
from latentmas.evaluation.engines._packing import pack_works
from latentmas.evaluation.engines._worker import TeamWorker, lost_reply
from latentmas.evaluation.runner import Work, as_one_run

__all__ = ["RayEngine"]


@engines.register("ray")
class RayEngine(Engine):
    """Runs rows on the workers of a Ray cluster, or on a cluster of its own on this machine.

    Example:
        `evaluate(system, rows, output="results.jsonl", engine=RayEngine(workers=4))`
    """

    name = "ray"
    """Registered name."""

    def __init__(
        self,
        *,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        cpus_per_worker: float | None = None,
        device: str | None = None,
        address: str | None = None,
        attempts: int = 3,
        plugins: Sequence[str | Path] = (),
        modules: Sequence[str] = (),
    ) -> None:
        """Say what workers need; nothing is started yet.

        Args:
            workers: number of workers, each with a copy of the team. Default: as many as the
                cluster has GPUs for; one if workers need no GPU.
            gpus_per_worker: GPUs of a worker. Default: 1 if the device is a GPU, else 0.
            cpus_per_worker: CPUs of a worker, to Ray's scheduler; it is also the number of threads
                of torch, at least 1. Default: 0 with GPUs, else at most 0.5.
            device: device of the workers' teams. Default: `"cuda"` if the team is on a GPU or
                `gpus_per_worker` is given, else `"cpu"`.
            address: address of a cluster. Default: the variable RAY_ADDRESS, then the cluster that
                runs on this machine, then a new one on this machine.
            attempts: number of workers that may die of the same rows before these are given up.
            plugins: Python files that workers import first, to register link kinds or tools.
            modules: modules that workers import first; they must be installed on all machines.

        Raises:
            LatentMASError: an option is out of range.
        """
        self.needs = Needs(workers, gpus_per_worker, cpus_per_worker)
        """What workers ask of the cluster."""
        self.device = device
        """Device of the workers' teams; None: chosen by the team and `gpus_per_worker`."""
        self.address = address
        """Address of the cluster; None: RAY_ADDRESS, or a cluster on this machine."""
        self.attempts = attempts
        """Number of workers that may die of the same rows."""
        self.plugins = [Path(path) for path in plugins]
        """Python files that workers import first."""
        self.modules = list(modules)
        """Modules that workers import first."""
        if attempts < 1:
            raise LatentMASError(f"attempts is {attempts}; it is a whole number of at least 1")

    def place(self, device: str) -> str:
        """`"cpu"`: the process that starts the evaluation only checks rows and keeps results."""
        return "cpu"

    def run(self, works: Iterable[Work]) -> None:
        """Run all jobs at once on the workers, and take rows as they come back."""
        todo = list(works)
        if not any(work.batch_count for work in todo):
            for work in todo:
                with as_one_run([work]):
                    pass
            return
        ray = import_ray()
        device = self._device(todo[0])
        payload = pack_works(
            todo,
            device=device,
            plugins=self.plugins,
            modules=self.modules,
            dumps=ray.cloudpickle.dumps,
        )
        with connected(ray, self.address), quiet(ray), as_one_run(todo):
            workers = self.needs.settle(ray.cluster_resources(), gpu=device.startswith("cuda"))
            batches = sum(work.batch_count for work in todo)
            calls = list(make_calls(todo, task_size(batches, workers.count)))
            with closing(_stream(ray, workers, payload, calls, self.attempts)) as replies:
                take_replies(replies, todo)

    def _device(self, work: Work) -> str:
        if self.device is not None:
            return self.device
        system = work.job.system
        on_gpu = any(one.device.type == "cuda" for one in system.agent_backbones.values())
        return "cuda" if on_gpu or (self.needs.gpus or 0) > 0 else "cpu"


class _Actor:
    """What Ray Data calls: a worker, and the ledger of attempts."""

    def __init__(self, payload: Any, ledger: Any, attempts: int) -> None:
        import ray

        self._worker = TeamWorker(ray.get(payload[0]))
        self._ledger, self._attempts = ledger, attempts

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        call: Call = pickle.loads(batch["call"][0])
        begun = 1
        with suppress(ray.exceptions.RayError):  # without the ledger, tasks are not given up
            begun = ray.get(self._ledger.begin.remote(call.number))
        if begun > self._attempts:
            reply = lost_reply(call, self._attempts)
        else:
            reply = self._worker.answer(call, attempt=begun)
        return {"reply": [reply.to_json()]}


def _stream(
    ray: Any, workers: Workers, payload: Any, calls: Sequence[Call], attempts: int
) -> Generator[str]:
    """Replies to calls, as they come; closing the iterator ends the work."""
    held = ray.put(payload)  # a list around the reference keeps Ray from resolving it
    ledger = ray.remote(num_cpus=0)(Ledger).remote()
    table = ray.data.from_items(
        [{"call": pickle.dumps(call)} for call in calls], override_num_blocks=len(calls)
    )
    strategy = ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=workers.count,
        initial_size=workers.count,
        max_tasks_in_flight_per_actor=2,
    )
    replies = table.map_batches(
        _Actor,
        fn_constructor_args=([held], ledger, attempts),
        batch_size=1,
        compute=strategy,
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    rows = iter(replies.iter_rows())
    try:
        for row in rows:
            yield row["reply"]
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise LatentMASError(
            f"Ray has given up: {type(error).__name__}: {lines[-1] if lines else error}; finished "
            "rows are kept, continue with resume"
        ) from error
    finally:
        rows.close()
        ray.kill(ledger)

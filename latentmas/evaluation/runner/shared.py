"""Results of processes that hold one model together: one of them writes, all know the rows."""

from __future__ import annotations

from pathlib import Path

from latentmas.errors import LatentMASError
from latentmas.evaluation.runner.results import Results
from latentmas.evaluation.runner.store import read_records
from latentmas.runtime import Mesh

__all__ = ["check_shard", "shared_results"]


def check_shard(mesh: Mesh | None, given: bool, engine: str) -> None:
    """Check that groups of processes that hold one model together have different rows.

    Raises:
        LatentMASError: There are several groups, and no shard is given, or an engine would divide
            the rows among the processes of a group.
    """
    if mesh is not None and engine != "local":
        raise LatentMASError(
            f"engine {engine!r} gives each process rows of its own, and with tensor_parallel "
            "processes run the same rows together; use engine 'local', with shard for each group"
        )
    if mesh is not None and mesh.replicas > 1 and not given:
        raise LatentMASError(
            f"this job has {mesh.replicas} groups of processes, which would all run all rows and "
            "write one file; give each its own: shard=Shard(system.mesh.replica, "
            "system.mesh.replicas), output=f'part-{system.mesh.replica}.jsonl'; `latentmas merge` "
            "joins the files"
        )


def shared_results(output: str | Path | None, mesh: Mesh | None) -> Results:
    """The results file; a process that does not write keeps its rows in memory.

    Raises:
        DataError: The file cannot be read or written.
        LatentMASError: The processes of a group found different rows in it.
    """
    if mesh is None or output is None:
        return Results(output)
    path = Path(output)
    results = Results(output if mesh.writes else None)
    mesh.check_same("evaluate", output=str(path))  # what came before is written
    found = list(read_records(path)) if path.exists() and path.stat().st_size else []
    for record in () if mesh.writes else found:
        results.add(record)
    done = [(one.system, one.row, one.key, one.error) for one in found]
    mesh.check_same("evaluate", rows=done)  # before the first one writes
    return results

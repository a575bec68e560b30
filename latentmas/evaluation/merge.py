"""Join the results files of shards, and score a results file again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from latentmas.errors import DataError
from latentmas.evaluation.evaluate import TEAM, gather
from latentmas.evaluation.runner import Results, RowRecord, name_samples, read_records
from latentmas.evaluation.scoring import Evaluation, score_records

__all__ = ["merge_results", "read_evaluation"]

_SHOWN = 10
"""Maximum number of rows that an error lists."""


def merge_results(shards: Sequence[str | Path], output: str | Path) -> Evaluation:
    """Join the results files of all shards into one, in the order of the data.

    Args:
        shards: results files of one evaluation; a row that several hold must be the same in all.
        output: file to write; it must not hold rows.

    Returns:
        The evaluation of all rows.

    Raises:
        DataError: a file cannot be read, files belong to different evaluations, or systems have
            different rows.
    """
    if Path(output).exists() and Path(output).stat().st_size:
        raise DataError(f"{str(output)!r} is not empty; name another file")
    with Results(output) as results:
        order: dict[str, int] = {}
        for shard in shards:
            for record in read_records(shard):
                known = results.key(record.system, record.row)
                if known is not None and known != record.key:
                    raise DataError(
                        f"{str(shard)!r}: row {record.row} of {record.system} is from another "
                        "evaluation than in the files before it; merge shards of one evaluation"
                    )
                order.setdefault(record.system, len(order))
                if known is None:
                    results.add(record)
        results.finish(order)
        if results.error is not None:
            raise results.error
    return read_evaluation(output)


def read_evaluation(path: str | Path) -> Evaluation:
    """Score a results file.

    Args:
        path: file that `evaluate` wrote.

    Raises:
        DataError: the file cannot be read, holds no rows, or systems have different rows.
    """
    rows: dict[str, list[int]] = {}
    for record in read_records(path):
        rows.setdefault(record.system, []).append(record.row)
    if TEAM not in rows:
        raise DataError(f"{str(path)!r} holds no rows of a team")
    for name, numbers in rows.items():
        if sorted(numbers) != sorted(rows[TEAM]):
            raise DataError(
                f"{str(path)!r}: {name} has {len(numbers)} rows and the team {len(rows[TEAM])}; "
                "finish the evaluation with resume"
            )
    missing = sorted(set(range(max(rows[TEAM]) + 1)).difference(rows[TEAM]))
    if missing:
        told = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise DataError(
            f"{str(path)!r} lacks {len(missing)} rows ({told}); finish all shards with resume, and "
            "merge them"
        )
    return gather({name: _scored(path, name) for name in rows})


def _scored(path: str | Path, system: str) -> Evaluation:
    def read() -> Iterator[RowRecord]:
        return iter(_of(path, system))

    names = name_samples(record.sample for record in read())
    return score_records(read(), clusters=[name.split()[0] for name in names], read=read)


def _of(path: str | Path, system: str) -> list[RowRecord]:
    return sorted((r for r in read_records(path) if r.system == system), key=lambda r: r.row)

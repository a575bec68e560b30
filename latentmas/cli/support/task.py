"""The rows that `latentmas eval` runs: those of a file, or of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.cli.support.rows import Row
from latentmas.errors import DataError
from latentmas.spec import JsonlFile, read_jsonl

__all__ = ["Task", "open_task"]


@dataclass
class Task:
    """Rows with answers, and how they are graded."""

    rows: list[Row]
    grader: str = "exact"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    answer_field: str = "answer"
    table: JsonlFile | None = None
    """The file that the rows are from, for errors that name lines."""

    def require(self, inputs: Sequence[str]) -> None:
        """Check that all rows have the inputs of a graph, and answers.

        Raises:
            DataError: rows lack fields; the error names the file and line of each.
        """
        wanted = [*inputs, self.answer_field]
        if self.table is not None:
            JsonlFile(self.table.path, self.rows, self.table.lines).require(wanted)
            return
        lacking = [name for name in wanted if name not in self.rows[0]]
        if lacking:
            raise DataError(
                f"the benchmark has no field {lacking[0]!r}, which the graph takes as an input; it "
                f"has: {', '.join(self.rows[0])}. Name the field to use, such as "
                f"--field {lacking[0]}=question"
            )


def open_task(
    data: Path | None,
    benchmark: str | None,
    *,
    limit: int | None,
    few_shot: int,
    answer_field: str,
    inputs: Mapping[str, str],
) -> Task:
    """Read the rows.

    Args:
        data: JSONL file, or the file of a benchmark.
        benchmark: name of a benchmark.
        limit: number of rows to take, from the first.
        few_shot: number of solved examples before each question of a benchmark.
        answer_field: field of the file's rows that holds the answer.
        inputs: input of the graph → field that fills it.

    Raises:
        DataError: the rows cannot be read, or lack a field of `inputs`.
        UnknownNameError: the benchmark is unknown.
    """
    if benchmark is None:
        assert data is not None
        table = read_jsonl(data)
        task = Task(table.rows[:limit], answer_field=answer_field, table=table)
    else:
        from latentmas.evaluation import benchmarks, load_benchmark

        found = benchmarks.get(benchmark)
        rows = load_benchmark(found, path=data, limit=limit, few_shot=few_shot)
        task = Task(list(rows), found.grader, found.grader_options)
    for name, source in inputs.items():
        for number, row in enumerate(task.rows):
            if source not in row:
                raise DataError(
                    f"row {number} lacks the field {source!r} of --field {name}={source}; it has: "
                    f"{', '.join(row)}"
                )
        task.rows = [row | {name: row[source]} for row in task.rows]
    return task

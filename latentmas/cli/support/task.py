"""The rows that `latentmas eval` runs: those of a file, or of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.cli.support.rows import Row
from latentmas.spec import JsonlFile, read_jsonl

__all__ = ["Task", "open_task"]


@dataclass
class Task:
    """Rows with answers, and how they are graded."""

    rows: Sequence[Row]
    grader: str = "exact"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    answer_field: str = "answer"
    table: JsonlFile | None = None
    """The file that the rows are from, for errors that name lines."""

    def fill(
        self, inputs: Sequence[str], fields: Mapping[str, str], *, keep: bool, answers: bool = True
    ) -> None:
        """Give all rows the inputs of a graph, and check that they have answers.

        Args:
            inputs: inputs of the graph.
            fields: input → field that fills it.
            keep: whether rows that lack a field are kept, with their errors.
            answers: whether rows need answers.

        Raises:
            DataError: rows lack fields; for a file, the error names the line of each.
        """
        if self.table is not None and not keep:
            needed = [fields.get(name, name) for name in inputs]
            lines = self.table.lines[: len(self.rows)]
            needed += [self.answer_field] if answers else []
            JsonlFile(self.table.path, [*self.rows], lines).require(needed)
        if fields or self.table is None:
            from latentmas.evaluation import fill_inputs

            self.rows = fill_inputs(self.rows, inputs, fields)


def open_task(
    data: Path | None,
    benchmark: str | None,
    *,
    limit: int | None,
    few_shot: int,
    answer_field: str,
) -> Task:
    """Read the rows.

    Args:
        data: JSONL file, or the file of a benchmark.
        benchmark: name of a benchmark.
        limit: number of rows to take, from the first.
        few_shot: number of solved examples before each question of a benchmark.
        answer_field: field of the file's rows that holds the answer.

    Raises:
        DataError: the rows cannot be read.
        UnknownNameError: the benchmark is unknown.
    """
    if benchmark is None:
        assert data is not None
        table = read_jsonl(data)
        return Task(table.rows[:limit], answer_field=answer_field, table=table)
    from latentmas.evaluation import benchmarks, load_benchmark

    found = benchmarks.get(benchmark)
    rows = load_benchmark(found, path=data, limit=limit, few_shot=few_shot)
    return Task(list(rows), found.grader, found.grader_options)

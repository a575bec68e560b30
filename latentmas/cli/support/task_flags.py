"""What the commands that score answers ask for: rows, their answers, a grader, controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentmas.cli.support.options import files_of, values

if TYPE_CHECKING:
    from latentmas.cli.support.task import Task
    from latentmas.evaluation import Grader

__all__ = [
    "AnswerField",
    "BenchmarkName",
    "Controls",
    "Data",
    "FewShot",
    "Fields",
    "GraderName",
    "GraderOptions",
    "Limit",
    "TwinTokens",
    "control_names",
    "open_judge",
]

Data = Annotated[Path | None, typer.Option("--data", help="JSONL file of rows with answers.")]
BenchmarkName = Annotated[
    str | None,
    typer.Option(
        help="Benchmark to run, by name; with --data, from that file instead of the Hub.",
        autocompletion=lambda: files_of("evaluation.benchmarks"),
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Number of rows to take, from the first.")]
FewShot = Annotated[
    int, typer.Option(min=0, help="Number of solved examples before each question.")
]
GraderName = Annotated[
    str | None,
    typer.Option(
        help="Grader of the answers, by name. Default: the benchmark's, else exact.",
        autocompletion=lambda: files_of("evaluation.graders"),
    ),
]
GraderOptions = Annotated[
    list[str] | None,
    typer.Option("--grader-option", help="Option of the grader as name=value; repeatable."),
]
AnswerField = Annotated[str, typer.Option(help="Field that holds the answer.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="Input of the graph and the field to fill it, as input=field; may be repeated.",
    ),
]
Controls = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Controls to run on the same rows, separated by commas: alone, twin, zeroed, "
        "shuffled, untrained; or all.",
    ),
]
TwinTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum number of tokens that the twin's agents write per edge."),
]


def open_judge(task: Task, grader: str | None, grader_option: list[str] | None) -> Grader:
    """The grader that was asked for, else that of the rows.

    Raises:
        UnknownNameError: the grader is unknown.
    """
    from latentmas.evaluation import open_grader

    return open_grader(
        grader or task.grader,
        **({} if grader else task.grader_options),
        **values("--grader-option", grader_option or []),
    )


def control_names(names: str, twin: bool) -> list[str]:
    """Names of controls, each once."""
    from latentmas.evaluation import CONTROLS

    given = [name.strip() for name in names.split(",") if name.strip()]
    given = list(CONTROLS) if given == ["all"] else given
    return list(dict.fromkeys([*given, *(["twin"] if twin else [])]))

"""The command that runs a team: run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli.chat import chat as answer_each
from latentmas.cli.chat import show
from latentmas.cli.support.answered import RowFile, answered, in_full, sample_end
from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import (
    Device,
    Json,
    Manifest,
    Team,
    check_outputs,
    pairs,
    unknown,
)
from latentmas.cli.support.placing import takes_device_map
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.rows import Row, jsonl
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.team import open_team
from latentmas.plan import Plan, RunOptions
from latentmas.spec import JsonlFile, read_jsonl

if TYPE_CHECKING:
    from latentmas.io import RunRecorder
    from latentmas.runtime import RunResult, System

__all__ = ["run"]

Field = Annotated[
    list[str] | None, typer.Option("--field", help="Input as name=value; may be repeated.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="JSONL file for the answers.")
]


@takes_device_map
@takes_run_options(executor="auto")
def run(
    team: Team,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="Value of the graph's only input.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file of samples, one per row.")] = None,
    output: Output = None,
    field: Field = None,
    *,
    options: RunOptions,
    device: Device = "cpu",
    text: Annotated[
        bool,
        typer.Option("--text", help="Run the text twin instead: the same graph, talking in text."),
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer to QUESTION as it is written.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="HTML report to write.")
    ] = None,
    twin: Annotated[
        bool, typer.Option("--twin", help="Also run the text twin, and show it in the report.")
    ] = False,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Answer questions from the terminal, or from lines of stdin."),
    ] = False,
    accounting: Annotated[
        bool,
        typer.Option("--accounting", help="Show the cost of each turn."),
    ] = False,
    manifest: Manifest = None,
    json: Json = False,
) -> None:
    """Run a team on a question, or on the rows of a JSONL file."""
    count = options.num_return_sequences
    if stream and (json or data is not None or count > 1):
        raise typer.BadParameter(
            "--stream shows one answer to QUESTION; leave out --json, --data and "
            "--num-return-sequences"
        )
    if twin and (text or report is None):
        raise typer.BadParameter("--twin requires --report, and excludes --text")
    if chat and (json or stream or count > 1 or (data or output or report or question or manifest)):
        raise typer.BadParameter(
            "--chat reads its questions itself and shows each answer; leave out QUESTION, --data, "
            "--output, --report, --manifest, --json, --stream and --num-return-sequences"
        )
    _check_page(report)
    check_outputs(output, report, manifest)
    asked = _Asked.of("" if chat else question, data, pairs("--field", field or []))
    asked = replace(asked, keeps=options.on_error == "keep")
    system = open_team(team, device=device, seed=seed_of(options), text=text, check=asked.rows)
    rows = asked.rows(system.plan)
    if options.executor in (None, "auto") and device != "cpu":
        note(f"executor: {system.choose_executor()}")
    if chat:
        if not answer_each(
            system, lambda line: replace(asked, question=line).rows(system.plan), options
        ):
            raise typer.Exit(1)
        return
    if report is not None:
        options = options.replace(record="report")
    recorder = None if manifest is None else _recorder(manifest, data, asked, rows)
    file = RowFile(output, len(rows), lambda end: in_full(rows[end.sample], end))
    with run_progress(quiet=stream) as watch, file.kept():
        result = system.run(
            rows,
            on_event=[watch, file.watch],
            on_text=show if stream else None,
            manifest=recorder,
            options=options,
        )
    well = _finish(asked, rows, result, file, json, shown=stream)
    if accounting:
        note(result.summary())
    well = _told_errors(result) and well
    if report is not None:
        other = _twin(system, rows, options) if twin else None
        note(f"wrote {_write_page(report, result, other, rows)}")
    raise typer.Exit(0 if well else 1)


def _told_errors(result: RunResult) -> bool:
    """Report the rows that failed; whether the command has succeeded."""
    for error in list(result.errors.values())[:_TOLD]:
        note(f"failed: {error}")
    if result.errors:
        note(f"{len(result.errors)} of {len(result.texts)} rows failed")
    return result.manifest_error is None and len(result.errors) < max(1, len(result.texts))


def _check_page(report: Path | None) -> None:
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(
            f"--report writes HTML: the file name must end in .html, found {report.name!r}"
        )


def _twin(system: System, rows: list[Row], options: RunOptions) -> RunResult:
    """A run of the team's text twin over the same samples."""
    with run_progress() as watch:
        return system.text_twin().run(rows, on_event=watch, options=options)


def _write_page(path: Path, result: RunResult, twin: RunResult | None, rows: list[Row]) -> Path:
    """The page about a run, with right answers and exact match where rows hold an answer."""
    inputs = result.record.plan.graph.inputs if result.record is not None else ()
    gold = [None if "answer" in inputs else _gold(row) for row in rows]
    if all(answer is None for answer in gold):
        return result.report(path, twin=twin)
    from latentmas.evaluation import exact_match

    def scores(run: RunResult) -> list[float | None]:
        texts = zip(run.texts, gold, strict=True)
        return [None if answer is None else exact_match(text, answer) for text, answer in texts]

    twin_scores = None if twin is None else scores(twin)
    own = scores(result)
    marks: dict[str, Any] = {"scores": own, "twin_scores": twin_scores, "grader": "exact match"}
    return result.report(path, twin=twin, gold=gold, **marks)


def _recorder(manifest: Path, data: Path | None, asked: _Asked, rows: list[Row]) -> RunRecorder:
    from latentmas.io import RunRecorder

    def score(result: RunResult) -> dict[str, Any]:
        return {} if asked.table is None else _score(_all_answered(rows, result))

    return RunRecorder(manifest, data=data, score=score)


_TOLD = 20
"""Maximum number of failed rows that are reported in full."""


@dataclass(frozen=True)
class _Asked:
    """What the user asked, before the graph's inputs are known."""

    question: str | None
    table: JsonlFile | None
    fields: dict[str, str]
    keeps: bool = False
    """Whether rows without an input are left to the run, which keeps their errors."""

    @classmethod
    def of(cls, question: str | None, data: Path | None, fields: dict[str, str]) -> _Asked:
        """Check that the parts go together, and read the file."""
        if data is not None and (question is not None or fields):
            raise typer.BadParameter("give --data, or QUESTION and --field, not both")
        return cls(question, None if data is None else read_jsonl(data), fields)

    def rows(self, plan: Plan) -> list[Row]:
        """The samples, each with every input of the graph."""
        inputs = plan.graph.inputs
        if self.table is not None:
            self.table.require([] if self.keeps else inputs)
            return self.table.rows
        for name in self.fields:
            if name not in inputs:
                listing = f"the graph's inputs are: {', '.join(inputs) or 'none'}"
                raise unknown("input", name, inputs, listing)
        left = [name for name in inputs if name not in self.fields]
        if self.question is None and not left:
            return [dict(self.fields)]
        if self.question is None or len(left) != 1:
            raise typer.BadParameter(_ask_for(left, self.question))
        return [{left[0]: self.question, **self.fields}]


def _ask_for(left: list[str], question: str | None) -> str:
    if not left:
        return f"--field sets every input; none is left for the question {question!r}"
    if len(left) == 1:
        return f"the graph needs its input {left[0]!r}: give QUESTION, or --data rows.jsonl"
    flags = " ".join(f'--field {name}="…"' for name in left)
    return f"the graph has several inputs: give {flags}, or --data rows.jsonl"


def _finish(
    asked: _Asked,
    rows: list[Row],
    result: RunResult,
    file: RowFile,
    json: bool,
    *,
    shown: bool,
) -> bool:
    """Score, write and print the answers; whether the file could be written, if one was wanted.

    Where it could not, the rows are printed: nothing that has been run is lost.
    """
    answers = _all_answered(rows, result)
    scores = _score(answers) if asked.table is not None else {}
    if scores:
        low, high = scores["interval"]
        between = f"95 % interval {low:.1%} to {high:.1%}"
        note(f"exact match: {scores['exact_match']:.1%} of {scores['scored']} rows ({between})")
    well = file.finish([file.rows[i] for i in range(len(rows))])
    saved = file.path is not None and well
    if json:
        where = {"output": str(file.path)} if saved else {"rows": answers}
        facts = {"count": len(rows), **scores, "seconds": result.seconds}
        if result.errors:
            facts["errors"] = {str(row): str(error) for row, error in result.errors.items()}
        emit_json(facts | {"accounting": [asdict(r) for r in result.accounting]} | where)
    elif asked.table is None:
        emit("" if shown else _told(result.sequences[0]))
    elif not saved:
        emit(jsonl(answers).rstrip("\n"))
    return well


def _told(answers: list[str]) -> str:
    """The answer as it is; several as JSON lines, so that each has its number and its end."""
    if len(answers) < 2:
        return "".join(answers)
    numbered = enumerate(answers, start=1)
    return jsonl({"number": i, "prediction": text} for i, text in numbered).rstrip("\n")


def _all_answered(rows: list[Row], result: RunResult) -> list[Row]:
    return [answered(row, sample_end(result, i)) for i, row in enumerate(rows)]


def _gold(row: Row) -> str | None:
    """The right answer that a row holds, if any; null is none."""
    answer = row.get("answer")
    return None if answer is None else str(answer)


def _score(answers: list[Row]) -> dict[str, Any]:
    """Exact match over the rows that hold an answer, with its 95 % interval."""
    from latentmas.evaluation import exact_match, wilson

    known = [(row, gold) for row in answers if (gold := _gold(row)) is not None]
    scored = [exact_match(row["prediction"] or "", gold) for row, gold in known]
    if not scored:
        return {}
    share = sum(scored) / len(scored)
    found = {"exact_match": share, "interval": list(wilson(share, len(scored)))}
    return found | {"scored": len(scored)}

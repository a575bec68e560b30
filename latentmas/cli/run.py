"""The command that runs a team: run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli._console import emit, emit_json, note
from latentmas.cli._data import Row, Rows, jsonl, read_rows
from latentmas.cli._finished import RowFile, answered, in_full, sample_end
from latentmas.cli._options import (
    BatchSize,
    Device,
    Executor,
    Json,
    LatentSteps,
    Manifest,
    MaxNewTokens,
    OnError,
    Rounds,
    Team,
    check_drawing,
    check_outputs,
    pairs,
    unknown,
)
from latentmas.cli._progress import run_progress
from latentmas.cli._team import open_team
from latentmas.cli.chat import chat as answer_each
from latentmas.cli.chat import show
from latentmas.plan import Plan

if TYPE_CHECKING:
    from latentmas.io import RunRecorder
    from latentmas.runtime import RunResult, System

__all__ = ["run"]

Field = Annotated[
    list[str] | None, typer.Option("--field", help="An input as name=value; may be repeated.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="JSONL file for the answers.")
]


def run(
    team: Team,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="The only input.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="JSONL file; every row is a sample.")] = None,
    output: Output = None,
    field: Field = None,
    rounds: Rounds = None,
    latent_steps: LatentSteps = None,
    max_new_tokens: MaxNewTokens = None,
    do_sample: Annotated[bool, typer.Option("--do-sample", help="Draw tokens.")] = False,
    temperature: Annotated[float, typer.Option(help="Of drawing.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of drawing.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Candidates of drawing.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Least relative probability.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 against repetition.")] = 1.0,
    num_return_sequences: Annotated[
        int, typer.Option(min=1, help="Answers of each sample, from one latent phase.")
    ] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="String that ends an answer; may be repeated.")
    ] = None,
    retry: Annotated[
        str | None, typer.Option(help="Lead answers without one to it: math, choice, code, search.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of drawing, and of untrained links.")] = 0,
    device: Device = "cpu",
    batch_size: BatchSize = 32,
    executor: Executor = "auto",
    text: Annotated[bool, typer.Option("--text", help="Run the graph's text twin.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer to QUESTION as it is written.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="HTML page to write about the run.")
    ] = None,
    twin: Annotated[
        bool, typer.Option("--twin", help="Run the text twin too, beside it in the report.")
    ] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Answer questions from the terminal, or lines of stdin.")
    ] = False,
    accounting: Annotated[
        bool,
        typer.Option("--accounting", help="Show what each turn cost."),
    ] = False,
    on_error: OnError = "raise",
    manifest: Manifest = None,
    json: Json = False,
) -> None:
    """Run a team on a question, or on the rows of a JSONL file."""
    sampling: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
    }
    check_drawing(do_sample, **sampling)
    if stream and (json or data is not None or num_return_sequences > 1):
        raise typer.BadParameter("--stream shows one answer to QUESTION; it goes without the rest")
    _check_answers(num_return_sequences, do_sample)
    if twin and (text or report is None):
        raise typer.BadParameter("--twin goes with --report, and not with --text")
    if chat and (
        json
        or stream
        or num_return_sequences > 1
        or (data or output or report or question or manifest)
    ):
        raise typer.BadParameter("--chat reads its questions itself and shows each answer")
    _check_page(report)
    check_outputs(output, report, manifest)
    depth = {"rounds": rounds, "latent_steps": latent_steps}
    sampling |= {"do_sample": do_sample, "max_new_tokens": max_new_tokens, "seed": seed}
    sampling |= {"num_return_sequences": num_return_sequences, "stop": stop or (), "retry": retry}
    sampling |= {"repetition_penalty": repetition_penalty, "on_error": on_error}
    asked = _Asked.of("" if chat else question, data, pairs("--field", field or []))
    asked = replace(asked, keeps=on_error == "keep")
    system = open_team(team, device=device, seed=seed, text=text, check=asked.rows)
    rows = asked.rows(system.plan)
    how: dict[str, Any] = depth | sampling | {"batch_size": batch_size, "executor": executor}
    if executor == "auto" and device != "cpu":
        note(f"executor: {system.choose_executor()}")
    if chat:
        if not answer_each(
            system, lambda line: replace(asked, question=line).rows(system.plan), how
        ):
            raise typer.Exit(1)
        return
    how["record"] = ("report",) if report is not None else ()
    recorder = None if manifest is None else _recorder(manifest, data, asked, rows)
    file = RowFile(output, len(rows), lambda end: in_full(rows[end.sample], end))
    with run_progress(quiet=stream) as watch, file.kept():
        result = system.run(
            rows,
            on_event=[watch, file.watch],
            on_text=show if stream else None,
            manifest=recorder,
            **how,
        )
    well = _finish(asked, rows, result, file, json, shown=stream)
    if accounting:
        note(result.summary())
    well = _told_errors(result) and well
    if report is not None:
        note(
            f"wrote {_write_page(report, result, _twin(system, rows, how) if twin else None, rows)}"
        )
    raise typer.Exit(0 if well else 1)


def _told_errors(result: RunResult) -> bool:
    """Tell what has failed beside the rows that are well; whether the command has not."""
    for error in list(result.errors.values())[:_TOLD]:
        note(f"failed: {error}")
    if result.errors:
        note(f"{len(result.errors)} of {len(result.texts)} rows failed")
    return result.manifest_error is None and len(result.errors) < max(1, len(result.texts))


def _check_answers(count: int, do_sample: bool) -> None:
    if count > 1 and not do_sample:
        flag = f"--num-return-sequences {count}"
        raise typer.BadParameter(f"{flag} goes with --do-sample; else all answers would be equal")


def _check_page(report: Path | None) -> None:
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"--report writes HTML: end {report.name!r} in .html")


def _twin(system: System, rows: list[Row], how: dict[str, Any]) -> RunResult:
    """A run of the team's text twin over the same samples."""
    with run_progress() as watch:
        return system.text_twin().run(rows, on_event=watch, **how)


def _write_page(path: Path, result: RunResult, twin: RunResult | None, rows: list[Row]) -> Path:
    """The page about a run, with right answers and exact match where rows hold an answer."""
    gold = [str(row["answer"]) if "answer" in row else None for row in rows]
    if all(answer is None for answer in gold):
        return result.report(path, twin=twin)
    from latentmas.evaluation import exact_match

    def scores(run: RunResult) -> list[float | None]:
        texts = zip(run.texts, gold, strict=True)
        return [None if answer is None else exact_match(text, answer) for text, answer in texts]

    twin_scores = None if twin is None else scores(twin)
    return result.report(path, twin=twin, gold=gold, scores=scores(result), twin_scores=twin_scores)


def _recorder(manifest: Path, data: Path | None, asked: _Asked, rows: list[Row]) -> RunRecorder:
    from latentmas.io import RunRecorder

    def score(result: RunResult) -> dict[str, Any]:
        return {} if asked.table is None else _score(_all_answered(rows, result))

    return RunRecorder(manifest, data=data, score=score)


_TOLD = 20
"""Most failed rows that are told in full."""


@dataclass(frozen=True)
class _Asked:
    """What the user asked, before the graph's inputs are known."""

    question: str | None
    table: Rows | None
    fields: dict[str, str]
    keeps: bool = False
    """Whether rows without an input are left to the run, which keeps their errors."""

    @classmethod
    def of(cls, question: str | None, data: Path | None, fields: dict[str, str]) -> _Asked:
        """Check that the parts go together, and read the file."""
        if data is not None and (question is not None or fields):
            raise typer.BadParameter("give --data, or QUESTION and --field, not both")
        return cls(question, None if data is None else read_rows(data), fields)

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
        return f"no input of the graph is left for the question {question!r}"
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


def _score(answers: list[Row]) -> dict[str, Any]:
    """Exact match over the rows that hold an answer, with its 95 % interval."""
    from latentmas.evaluation import exact_match, wilson

    known = [row for row in answers if "answer" in row]
    scored = [exact_match(row["prediction"] or "", str(row["answer"])) for row in known]
    if not scored:
        return {}
    share = sum(scored) / len(scored)
    found = {"exact_match": share, "interval": list(wilson(share, len(scored)))}
    return found | {"scored": len(scored)}

"""What `run` and `eval` have finished is kept, whatever happens after."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.cli import evaluate, run
from latentmas.cli.support import progress as _progress
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.rows import write_rows
from latentmas.io import RunManifest
from latentmas.runtime import RunBegin, SampleEnd, Token
from latentmas.spec import read_jsonl
from tests.teams import sequential
from tests.test_cli import call, plain, words  # noqa: F401

COUNT = 8


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = sequential(rounds=1, latent_steps=1, max_new_tokens=3)
    return graph.save(tmp_path_factory.mktemp("team") / "team.yaml")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    data = [{"question": f"{n}+1?", "answer": str(n + 1)} for n in range(COUNT)]
    return write_rows(tmp_path / "rows.jsonl", data)


@contextmanager
def interrupting(**_: Any) -> Iterator[Any]:
    """Progress whose reader presses Ctrl-C when the seventh row ends."""
    ended = list[int]()

    def watch(event: object) -> None:
        if isinstance(event, SampleEnd):
            ended.append(event.sample)
            if len(ended) == 7:
                raise KeyboardInterrupt

    yield watch


@pytest.mark.parametrize(("command", "module"), [("run", run), ("eval", evaluate)])
def test_ctrl_c_keeps_the_finished_rows(
    team: Path, rows: Path, tmp_path: Path, monkeypatch: Any, command: str, module: Any
) -> None:
    out = tmp_path / "out.jsonl"
    if command == "run":
        out.write_text("of an earlier run\n")
    monkeypatch.setattr(module, "run_progress", interrupting)
    error = call(command, team, "--data", rows, "-o", out, "--batch-size", 3, code=130).stderr
    assert "interrupted" in error
    kept = read_jsonl(out).rows
    if command == "run":
        assert f"6 of 8 rows are in {out}" in error
        assert {"question", "prediction", "sample", "token_ids"} <= kept[0].keys()
    else:
        assert f"{len(kept)} rows are in {out}; continue with --resume" in error
        assert {"prediction", "right", "sample", "answers", "prompt"} <= kept[0].keys()
    assert len(kept) >= 6


def test_rows_are_on_disk_as_they_end_and_in_order_at_the_end(
    team: Path, rows: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out, seen = tmp_path / "new" / "out.jsonl", list[int]()

    @contextmanager
    def counting(**_: Any) -> Iterator[Any]:
        def watch(event: object) -> None:
            if isinstance(event, SampleEnd):
                seen.append(len(read_jsonl(out).rows) if out.exists() else 0)

        yield watch

    monkeypatch.setattr(run, "run_progress", counting)
    call("run", team, "--data", rows, "-o", out, "--batch-size", 2)
    assert seen == list(range(COUNT))
    assert [row["sample"] for row in read_jsonl(out).rows] == list(range(COUNT))


@pytest.mark.parametrize("command", ["run", "eval"])
def test_a_full_disk_costs_no_run(team: Path, rows: Path, command: str) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    result = call(command, team, "--data", rows, "-o", full, code=1)
    assert "cannot write '/dev/full': No space left on device" in result.stderr
    if command == "run":
        assert len(result.stdout.splitlines()) == COUNT
        assert all("prediction" in json.loads(line) for line in result.stdout.splitlines())
    else:
        assert "95 % interval" in result.stdout


def test_a_disk_that_fills_up_leaves_whole_lines(
    team: Path, rows: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out, written, write = tmp_path / "out.jsonl", list[bytes](), os.write

    def filling(file: int, data: bytes) -> int:
        written.append(data)
        return int(write(file, data if len(written) < 4 else data[:10]))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    monkeypatch.setattr("latentmas.cli.support.answered.os.write", filling)
    monkeypatch.setattr("latentmas.cli.support.answered.write_rows", full)
    result = call("run", team, "--data", rows, "-o", out, code=1)
    assert "No space left on device; 3 of 8 rows are in it" in result.stderr
    assert len(read_jsonl(out).rows) == 3 and len(result.stdout.splitlines()) == COUNT


@pytest.mark.parametrize("command", ["run", "eval"])
def test_a_manifest_that_cannot_be_written_costs_no_run(
    team: Path, rows: Path, tmp_path: Path, monkeypatch: Any, caplog: Any, command: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunManifest, "save", full)
    path, out = tmp_path / "run.json", tmp_path / "out.jsonl"
    options = ("--data", rows, "--manifest", path, "-o", out)
    call(command, team, *options, code=1)
    assert f"the manifest '{path}' could not be written" in caplog.text
    assert "No space left" in caplog.text
    assert len(read_jsonl(out).rows) == COUNT
    system = lm.Graph.load(team).compile().load()
    result = system.run(["1+1?"], manifest=path)
    assert result.text and isinstance(result.manifest_error, OSError)


def test_a_score_that_fails_costs_no_run(team: Path, tmp_path: Path) -> None:
    system = lm.Graph.load(team).compile().load()

    def score(result: object) -> dict[str, Any]:
        raise ZeroDivisionError("no rows")

    result = system.run(["?"], manifest=system.recorder(tmp_path / "run.json", score=score))
    assert result.texts and isinstance(result.manifest_error, ZeroDivisionError)


@pytest.mark.parametrize("command", ["run", "eval"])
def test_rows_that_fail_are_kept_with_their_errors(
    team: Path, rows: Path, tmp_path: Path, command: str
) -> None:
    data = read_jsonl(rows).rows
    data[2]["question"] = "word " * 9_000
    del data[5]["question"]
    write_rows(rows, data)
    out, options = tmp_path / "out.jsonl", ("--data", rows, "--json")
    strict = call(command, team, *options, code=1).stderr
    assert f"{rows}:6: lacks the field 'question'" in strict
    facts = json.loads(call(command, team, *options, "-o", out, "--on-error", "keep").stdout)
    assert set(facts["errors"]) == {"2", "5"}
    saved = read_jsonl(out).rows
    number = "row" if command == "eval" else "sample"
    assert [row[number] for row in saved if row.get("error")] == [2, 5]
    assert saved[2]["prediction"] is None and "4096 positions" in saved[2]["error"]
    error = words(call(command, team, *options, "--on-error", "skip", code=2).stderr)
    assert "'skip' is not one of 'raise', 'keep'" in error
    write_rows(rows, [{"question": "word " * 9_000, "answer": ""}])
    call(command, team, *options, "--on-error", "keep", code=1)


def test_eval_scores_all_answers(team: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    drawn = ("--do-sample", "--num-return-sequences", 2, "-o", out)
    facts = json.loads(call("eval", team, "--data", rows, "--json", *drawn).stdout)
    assert set(facts["sampled"]) == {"pass@1", "pass@2", "maj@2", "any of 2"}
    rights = [[one["right"] for one in row["answers"]] for row in read_jsonl(out).rows]
    assert all(len(own) == 2 for own in rights)
    assert facts["score"] == sum(map(sum, rights)) / (2 * COUNT)


def test_without_a_terminal_long_runs_say_how_far_they_are(monkeypatch: Any, capsys: Any) -> None:
    times = iter([0.0, 0.0, 5.0, 16.0, 17.0, 40.0])
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(times))
    with run_progress() as watch:
        watch(RunBegin(20, 3))
        watch(Token(0, "solver", 5))
        for n in range(3):
            watch(SampleEnd(n, error=lm.DataError("no") if n == 1 else None))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 20 rows finished, 1 answer tokens, 16 s",
        "3 of 20 rows finished (1 failed), 1 answer tokens, 40 s",
    ]


def test_the_bar_moves_when_a_row_ends(monkeypatch: Any) -> None:
    moved = list[float]()

    class Bar:
        def add_task(self, *_: object, **__: object) -> int:
            return 0

        def reset(self, *_: object, **__: object) -> None: ...
        def update(self, *_: object, **__: object) -> None: ...
        def advance(self, _: int, by: float) -> None:
            moved.append(by)

    watch = _progress._Bar(Bar())  # type: ignore[arg-type]
    sequential(rounds=1, latent_steps=1, max_new_tokens=2).compile().load().run(
        ["a", "b"], on_event=watch
    )
    assert moved[-2:] == [1, 1] and sum(moved) == 2 * 5


def test_rows_that_the_twin_fails_have_no_prediction_of_it(team: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"question": "1?", "answer": "1"}, {"answer": "2"}])
    out = tmp_path / "out.jsonl"
    call("eval", team, "--data", data, "--twin", "-o", out, "--on-error", "keep")
    rows = read_jsonl(out).rows
    assert [(row["system"], row["row"]) for row in rows] == [
        *(("team", 0), ("team", 1)),
        *(("twin", 0), ("twin", 1)),
    ]
    assert isinstance(rows[2]["prediction"], str) and rows[2]["error"] is None
    assert rows[3]["prediction"] is None and not rows[3]["right"]
    assert "lacks the field 'question'" in rows[3]["error"]

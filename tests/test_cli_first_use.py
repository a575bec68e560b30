"""What a new user meets on the command line: slips are told early, in the user's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

import latentmas as lm
from latentmas.cli._data import write_rows
from latentmas.runtime import System
from tests.test_cli import call, plain, team, words  # noqa: F401  # fixtures, too


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])


# --- outputs ----------------------------------------------------------------------------------


def no_run(*_: object, **__: object) -> None:
    raise AssertionError("ran before it was known whether the result can be kept")


@pytest.mark.parametrize(
    ("command", "flag", "name"),
    [
        *(("run", flag, "out.html") for flag in ("-o", "--manifest", "--report")),
        *(("eval", flag, "out.json") for flag in ("-o", "--manifest")),
    ],
)
def test_outputs_are_checked_before_the_run(team, rows, tmp_path, monkeypatch, command, flag, name):  # noqa: F811
    monkeypatch.setattr(System, "run", no_run)
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / name
    error = call(command, team, "--data", rows, flag, path, code=1).stderr
    assert f"error: cannot write '{path}': Not a directory" in error


def test_a_manifest_is_checked_before_the_run(team, tmp_path):  # noqa: F811
    system = lm.Graph.load(team).compile().load()
    with pytest.raises(lm.DataError, match=f"cannot write '{tmp_path}': Is a directory"):
        system.run(["x"], manifest=tmp_path, on_event=no_run)
    deep = tmp_path / "new" / "deep" / "run.json"
    with pytest.raises(lm.LatentMASError, match="top_p"):
        system.run(["x"], manifest=deep, top_p=7.0)
    assert not (tmp_path / "new").exists()
    system.run(["x"], manifest=deep, max_new_tokens=1)
    assert deep.is_file() and [path.name for path in deep.parent.iterdir()] == ["run.json"]


def test_an_output_that_fails_is_named_as_the_user_did(team, tmp_path):  # noqa: F811
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "plan.json"
    assert f"'{path}'" in call("plan", team, "-o", path, code=1).stderr

"""What every engine must do; a new engine is tested by being registered."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.evaluation import CONTROLS, Engine, engines, evaluate, open_engine
from tests.teams import sequential

ROWS = [{"question": f"{n} + 1?", "answer": str(n)} for n in range(10)]
GIVEN: dict[str, Any] = {
    "do_sample": True,
    "temperature": 2.0,
    "batch_size": 3,
    "controls": list(CONTROLS),
    "twin_tokens": 3,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "torchrun": {"rank": 0, "world_size": 1},
    "ray": {"workers": 2},
}
NEEDS = {"ray": "ray"}
pytestmark = [
    pytest.mark.filterwarnings("default"),  # Ray's own, and those that it causes
    pytest.mark.timeout(600),  # a cluster starts, and each worker imports torch
]


def opened(name: str) -> Engine:
    package = NEEDS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'latentmas[{package}]'")
    return open_engine(name, **OPTIONS.get(name, {}))


def plain(path: Path) -> list[dict[str, Any]]:
    """Rows of a file, without times."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(rounds=1, latent_steps=2, max_new_tokens=4).compile().load()


@pytest.fixture(scope="module")
def whole(team: lm.System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of an evaluation in one process."""
    path = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    evaluate(team, ROWS, output=path, **GIVEN)
    return path


@pytest.mark.parametrize("name", engines.names())
def test_rows_are_those_of_one_process(team, whole, tmp_path, name):
    path, ended = tmp_path / "rows.jsonl", list[Any]()
    found = evaluate(team, ROWS, output=path, engine=opened(name), on_event=ended.append, **GIVEN)
    assert plain(path) == plain(whole)
    assert found.rows == len(ROWS) and list(found.others) == list(CONTROLS)
    assert found.row_scores == tuple(row["score"] for row in plain(whole)[: len(ROWS)])
    names = [type(event).__name__ for event in ended]
    assert names.count("SampleEnd") == 6 * len(ROWS)
    assert names.count("RunBegin") == names.count("RunEnd") >= 1


@pytest.mark.parametrize("name", engines.names())
def test_an_evaluation_that_one_process_began_can_be_continued(team, whole, tmp_path, name):
    engine, path = opened(name), tmp_path / "rows.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    kept = lines[:4] + lines[23:31]
    path.write_bytes(b"".join(kept) + lines[40][:30])  # as a kill leaves it
    evaluate(team, ROWS, output=path, resume=True, engine=engine, **GIVEN)
    assert plain(path) == plain(whole)


@pytest.mark.parametrize("name", engines.names())
def test_a_row_that_cannot_run_does_not_cost_the_others(team, tmp_path, name):
    engine, bad = opened(name), [*ROWS[:4], {"question": "x" * 9000, "answer": "1"}, *ROWS[4:6]]
    options: dict[str, Any] = {"batch_size": 3, "on_error": "keep"}
    evaluate(team, bad, output=tmp_path / "local.jsonl", **options)
    found = evaluate(team, bad, output=tmp_path / "own.jsonl", engine=engine, **options)
    assert list(found.errors) == [4] and "sample 4" in str(found.errors[4])
    assert plain(tmp_path / "own.jsonl") == plain(tmp_path / "local.jsonl")

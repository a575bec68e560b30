"""One reader of JSONL files and one check of fields, wherever rows come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.cli.support.rows import jsonl
from latentmas.evaluation import evaluate
from latentmas.spec import field_problem, read_jsonl
from latentmas.training.data import read_rows
from tests.teams import sequential

BAD = {
    '{"question": "a"}\n{"question": \n': "rows.jsonl:2: not JSON",
    '{"question": "a"}\n\n[1]\n': "rows.jsonl:3: found list, not a JSON object",
    "\n \n": "rows.jsonl: empty; give one JSON object per line",
}


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=1, latent_steps=1).compile().load()


@pytest.mark.parametrize("text", BAD)
def test_every_door_reads_files_alike(text: str, system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    team, manifest = system.save_pretrained(tmp_path / "team"), tmp_path / "run.json"
    system.run(["x"], manifest=manifest, max_new_tokens=1)
    said = [CliRunner().invoke(app, ["run", str(team), "--data", str(path)]).stderr]
    for read in (read_jsonl, read_rows, lambda path: lm.rerun(manifest, team=system, data=path)):
        with pytest.raises(lm.DataError) as caught:
            read(path)
        said.append(str(caught.value))
    assert all(BAD[text] in message for message in said)


def test_every_door_names_a_lacking_field_alike(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n\n{"prompt": "a", "answer": "b"}\n')
    file = read_jsonl(path)
    lacks = "lacks the field 'question'; it has: prompt, answer"

    def trained(rows: Any) -> None:
        read_rows(rows).check(["question"], "train_dataset")

    doors = {
        f"{path}:3: {lacks}": lambda: file.require(["question"]),
        f"sample 1 {lacks}": lambda: system.run(file.rows),
        f"train_dataset, row 1 {lacks}": lambda: trained(file.rows),
        f"train_dataset, row 1 ({path}:3) {lacks}": lambda: trained(path),
    }
    for message, door in doors.items():
        with pytest.raises(lm.DataError) as caught:
            door()
        assert str(caught.value).startswith(message)
    with pytest.raises(lm.DataError, match="sample 0 lacks the field 'gold'; it has: prompt"):
        evaluate(system, [{"prompt": "a"}], answer_field="gold")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": 1}, None),
        ({}, "row 0 lacks the field 'a'; it has: nothing"),
        ([1], "row 0: found list, not a mapping of fields"),
        ({"a": None}, "row 0: the field 'a' is null"),
    ],
)
def test_what_is_wrong_with_a_field(row: object, said: str | None) -> None:
    found = field_problem("row 0", row, "a", null=False)
    assert found is None if said is None else str(found).startswith(said)
    assert field_problem("row 0", {"a": None}, "a") is None


def test_a_file_without_a_field_names_at_most_twenty_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n" * 25)
    with pytest.raises(lm.DataError) as caught:
        read_jsonl(path).require(["a", "b"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:1: lacks the field 'a'")
    assert lines[-1] == "and 5 more rows" and len(lines) == 21


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), min_size=1, max_size=5))
def test_rows_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(jsonl(rows), encoding="utf-8")
    assert read_jsonl(path).rows == rows
